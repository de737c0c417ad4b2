//! Installs the pinned tools of TypeScript and Python, once for each state of their lock files.
//!
//! The tools live in this crate's folder, not in each filter's: an author needs no `npm install` and no virtual environment of their own. Must not know: filters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::progress;

/// The folder with `typescript/` and `python/`: COMPONENTIZE_HOME, or where this crate was built.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("COMPONENTIZE_HOME").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The folder of a language's tools.
pub(crate) fn tools(language: &str) -> PathBuf {
    home().join(language)
}

/// `npm ci`, where the lock file changed since the last time.
pub(crate) fn typescript() -> Result<()> {
    let folder = tools("typescript");
    once(&folder, "package-lock.json", "node_modules/.lock", || {
        progress::once("installing the TypeScript tools (npm ci)");
        run(
            Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder),
            "install Node.js 20 or newer",
        )
    })
}

/// A virtual environment with the locked packages, where the lock file changed since the last time.
pub(crate) fn python() -> Result<()> {
    let folder = tools("python");
    once(&folder, "requirements.lock", ".venv/.lock", || {
        progress::once("installing the Python tools (venv, pip install)");
        run(
            Command::new("python3").args(["-m", "venv", "--clear", ".venv"]).current_dir(&folder),
            "install Python 3.11 or newer with venv",
        )?;
        let mut pip = Command::new(folder.join(".venv/bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            "requirements.lock",
        ]);
        run(pip.current_dir(&folder), "is the package index reachable?")
    })
}

fn once(folder: &Path, lock: &str, stamp: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let lock = folder.join(lock);
    let wanted = fs::read(&lock).with_context(|| format!("{}: is COMPONENTIZE_HOME right?", lock.display()))?;
    if fs::read(folder.join(stamp)).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    install()?;
    fs::write(folder.join(stamp), wanted)?;
    Ok(())
}

/// Runs a tool; its output is only shown where it fails.
pub(crate) fn run(command: &mut Command, hint: &str) -> Result<()> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{shown} cannot be run: {hint}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed ({}): {hint}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
