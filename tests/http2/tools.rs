//! Installs the external tools that the tests need.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Installs a tool with `tests/tools/install`, unless it is installed. Returns the folder of the
/// tools that the script builds.
pub(crate) fn install(tool: &str) -> Result<PathBuf> {
    let script = harness::repository().join("tests/tools/install");
    let output = Command::new(&script).arg(tool).output().context("cannot run tests/tools/install")?;
    ensure!(
        output.status.success(),
        "tests/tools/install failed to install {tool}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(harness::repository().join("target/tools"))
}
