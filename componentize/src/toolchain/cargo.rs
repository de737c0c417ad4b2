//! What cargo needs to compile for WebAssembly, and where the installed Rust is.
//!
//! This module does not know: filters, where the compiler comes from.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// Advice for a missing Rust.
pub(crate) const INSTALL_RUST: &str = "install Rust (https://rustup.rs)";

/// Arguments and environment with which cargo compiles for WebAssembly.
#[derive(Debug, Default)]
pub(crate) struct CargoSetup {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// The installation folder of the compiler that cargo uses in the folder `source`.
pub(crate) fn sysroot(source: &Path) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "sysroot"]).current_dir(source);
    let output = rustc.output().with_context(|| format!("rustc cannot be run: {INSTALL_RUST}"))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}
