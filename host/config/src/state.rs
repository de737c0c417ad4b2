//! `state:`: the folder that the gateway keeps between runs.
//!
//! This module does not know: what the folder contains, whether it exists.

use std::path::{Path, PathBuf};

use crate::yaml::Section;

/// `{directory: state}`, relative to the folder of gateway.yaml.
pub(crate) fn read(top: &Section, base: &Path) -> PathBuf {
    top.nested("state", |section| section.file("directory", base)).unwrap_or_else(|| base.join("state"))
}
