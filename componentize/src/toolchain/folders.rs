//! The folders that builds need: the files of the repository, and the tools.
//!
//! Within this repository the builder uses the repository's own files and installs the tools beside
//! them. After [`use_embedded_files`] it uses the files that are part of the program, and installs
//! the tools into a folder of the user. This module does not know: languages.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Result;

use crate::embedded_files;

/// The folder of the unpacked files. Empty if the builder works in its repository.
static UNPACKED: OnceLock<PathBuf> = OnceLock::new();

/// Makes the builder independent of a checkout of its repository: unpacks the embedded files into
/// the folder `WITGATE_HOME`, by default `witgate` in the user's folder for caches.
///
/// # Errors
///
/// The folder cannot be written.
pub fn use_embedded_files() -> Result<()> {
    if UNPACKED.get().is_none() {
        let folder = embedded_files::unpack()?;
        let _ = UNPACKED.set(folder);
    }
    Ok(())
}

/// The folder of the unpacked files, if the builder uses them.
pub(crate) fn unpacked() -> Option<&'static Path> {
    UNPACKED.get().map(PathBuf::as_path)
}

/// The folder of componentize with `typescript/` and `python/`: that of the unpacked files, else
/// `COMPONENTIZE_HOME`, else the folder from which this program was built.
pub(crate) fn home() -> PathBuf {
    if let Some(unpacked) = unpacked() {
        return unpacked.join("componentize");
    }
    checkout().unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into())
}

/// `COMPONENTIZE_HOME`: the folder componentize of a checkout of the repository. With the embedded
/// files, only the tools that are installed there are used.
pub(crate) fn checkout() -> Option<PathBuf> {
    std::env::var_os("COMPONENTIZE_HOME").map(PathBuf::from)
}

/// The repository that contains [`embedded_files`], with `guests/` and `wit/`.
pub fn repository() -> PathBuf {
    let home = home();
    home.parent().map_or_else(|| home.join(".."), Path::to_owned)
}

/// The folder with the scripts of a language. Its tools are installed there, or linked.
pub(crate) fn tools(language: &str) -> PathBuf {
    home().join(language)
}

/// The folder for a Rust that this program unpacks.
pub(crate) fn rust() -> PathBuf {
    match unpacked().and_then(|files| files.ancestors().nth(2)) {
        Some(home) => home.join("tools"),
        None => repository().join("target"),
    }
}
