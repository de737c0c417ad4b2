//! Tools that are not Rust, installed where they are missing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Installs a tool that `tests/tools/install` knows; gives the folder of those that it built.
pub(crate) fn install(tool: &str) -> Result<PathBuf> {
    let script = harness::repository().join("tests/tools/install");
    let output = Command::new(&script).arg(tool).output().context("tests/tools/install cannot be run")?;
    ensure!(
        output.status.success(),
        "{tool} was not installed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(harness::repository().join("target/tools"))
}
