//! The folders of this repository that builds need.
//!
//! This module does not know: languages.

use std::path::{Path, PathBuf};

/// The folder of componentize with `typescript/` and `python/`: `COMPONENTIZE_HOME` if it is set,
/// else the folder from which this program was built.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("COMPONENTIZE_HOME").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The repository that contains [`home`], with `guests/` and `wit/`.
pub fn repository() -> PathBuf {
    let home = home();
    home.parent().map_or_else(|| home.join(".."), Path::to_owned)
}

/// The folder with the tools of a language.
pub(crate) fn tools(language: &str) -> PathBuf {
    home().join(language)
}
