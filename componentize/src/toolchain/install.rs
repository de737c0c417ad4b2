//! Installs the pinned tools of TypeScript and Python, once for each state of their lock files.
//!
//! The tools are in the folder of this crate or of the user and not in that of a filter, so an
//! author needs neither `npm install` nor a virtual environment. This module does not know:
//! filters.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::command::run;
use super::folders::{checkout, tools, unpacked};
use crate::{embedded_files, progress};

const NODE_MIN: (u32, u32) = (20, 0);
const PYTHON_MIN: (u32, u32) = (3, 11);
/// Tried in this order: first the default Python of the system.
const PYTHONS: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/// Runs `npm ci` if the lock file has changed since the last installation.
pub(crate) fn typescript() -> Result<()> {
    let folder = tools_folder("typescript", &["package-lock.json", "package.json"])?;
    install_once(&folder.join("package-lock.json"), &folder.join("node_modules/.lock"), || {
        const HINT: &str = "install Node.js 20 or newer, with npm";
        let version = version("node").with_context(|| format!("node cannot be run: {HINT}"))?;
        if version < NODE_MIN {
            bail!("node is {}.{}: {HINT}", version.0, version.1);
        }
        progress::setup_notice("installing the TypeScript tools, once (npm ci, about 30 s)");
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
        run(&mut npm, HINT)
    })?;
    link("typescript", "node_modules", &folder)
}

/// Creates a virtual environment with the locked packages if the lock file has changed since the
/// last installation.
pub(crate) fn python() -> Result<()> {
    let folder = tools_folder("python", &["requirements.lock"])?;
    install_once(&folder.join("requirements.lock"), &folder.join(".venv/.lock"), || {
        let python =
            PYTHONS.into_iter().find(|python| version(python).is_some_and(|version| version >= PYTHON_MIN)).context(
                "there is no Python 3.11 or newer (tried python3 and python3.11 to python3.14): install it with venv",
            )?;
        progress::setup_notice("installing the Python tools, once (venv and pip install, about a minute)");
        let mut venv = Command::new(python);
        venv.args(["-m", "venv", "--clear", ".venv"]).current_dir(&folder);
        run(&mut venv, "install Python's venv (Debian: python3-venv)")?;
        let mut pip = Command::new(folder.join(".venv/bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
        pip.args(["-r", "requirements.lock"]).current_dir(&folder);
        run(&mut pip, "is the package index reachable?")
    })?;
    link("python", ".venv", &folder)
}

/// The folder in which the tools of a language are installed.
fn tools_folder(language: &str, files: &[&str]) -> Result<PathBuf> {
    match (unpacked(), checkout()) {
        (Some(_), None) => embedded_files::tools(language, &tools(language), files),
        (Some(_), Some(checkout)) => Ok(checkout.join(language)),
        (None, _) => Ok(tools(language)),
    }
}

/// Makes the installed tools visible beside the scripts of the language.
fn link(language: &str, name: &str, installed: &Path) -> Result<()> {
    let (target, link) = (installed.join(name), tools(language).join(name));
    if target == link || fs::read_link(&link).is_ok_and(|current| current == target) {
        return Ok(());
    }
    // A rename replaces a link of another folder at once, while other processes use it.
    let fresh = link.with_file_name(format!(".link-{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    symlink(&target, &fresh).and_then(|()| fs::rename(&fresh, &link)).with_context(|| format!("{}", link.display()))
}

/// The major and minor version that `program --version` prints; `None` if it cannot be run.
fn version(program: &str) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads a text such as `v20.20.2` or `Python 3.11.7`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().rsplit(['v', ' ']).next()?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Calls `install` unless `stamp` has the content of `lock_file`.
fn install_once(lock_file: &Path, stamp: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let locked = lock(lock_file)?;
    let wanted = fs::read(lock_file)?;
    if fs::read(stamp).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    let began = Instant::now();
    install()?;
    progress::setup_notice(&format!("installed in {:.0} s", began.elapsed().as_secs_f64()));
    fs::write(stamp, wanted).with_context(|| format!("{}", stamp.display()))?;
    drop(locked);
    Ok(())
}

/// Locks the file until the result is dropped, so that two processes do not install into one
/// folder.
fn lock(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| {
        format!("{}: set COMPONENTIZE_HOME to the folder componentize of the repository", path.display())
    })?;
    file.lock().with_context(|| format!("{}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_installed_once_for_each_state_of_the_lock_file() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (lock_file, stamp) = (folder.path().join("lock"), folder.path().join("stamp"));
        let mut count = 0;
        for text in ["a", "a", "b"] {
            fs::write(&lock_file, text)?;
            install_once(&lock_file, &stamp, || {
                count += 1;
                Ok(())
            })?;
        }
        assert_eq!(count, 2);
        fs::write(&lock_file, "c")?;
        assert!(install_once(&lock_file, &stamp, || bail!("no network")).is_err());
        assert_eq!(fs::read_to_string(&stamp)?, "b");
        Ok(())
    }

    #[test]
    fn versions_are_read_from_the_output_of_programs() {
        assert_eq!(parse_version("v20.20.2\n"), Some((20, 20)));
        assert_eq!(parse_version("Python 3.11.7\n"), Some((3, 11)));
        assert_eq!(parse_version("not found"), None);
    }
}
