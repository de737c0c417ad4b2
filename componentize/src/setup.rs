//! Installs the pinned tools of TypeScript and Python, once for each state of their lock files.
//!
//! The tools live in this crate's folder, not in each filter's: an author needs no `npm install` and no virtual environment of their own.
//! Must not know: filters.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::progress;

const NODE_MIN: (u32, u32) = (20, 0);
const PYTHON_MIN: (u32, u32) = (3, 11);
/// Tried in this order: what the person means by Python, then what else may be there.
const PYTHONS: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/// The folder with `typescript/` and `python/`: COMPONENTIZE_HOME, or where this crate was built.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("COMPONENTIZE_HOME").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The repository around it, with `guests/` and `wit/`.
pub(crate) fn repository() -> PathBuf {
    let home = home();
    home.parent().map_or_else(|| home.join(".."), Path::to_owned)
}

/// The folder of a language's tools.
pub(crate) fn tools(language: &str) -> PathBuf {
    home().join(language)
}

/// `npm ci`, where the lock file changed since the last time.
pub(crate) fn typescript() -> Result<()> {
    let folder = tools("typescript");
    once(&folder.join("package-lock.json"), &folder.join("node_modules/.lock"), || {
        const HINT: &str = "install Node.js 20 or newer, with npm";
        let version = version("node").with_context(|| format!("node cannot be run: {HINT}"))?;
        if version < NODE_MIN {
            bail!("node is {}.{}: {HINT}", version.0, version.1);
        }
        progress::once("installing the TypeScript tools (npm ci)");
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
        run(&mut npm, HINT)
    })
}

/// A virtual environment with the locked packages, where the lock file changed since the last time.
pub(crate) fn python() -> Result<()> {
    let folder = tools("python");
    once(&folder.join("requirements.lock"), &folder.join(".venv/.lock"), || {
        let python = PYTHONS
            .into_iter()
            .find(|python| version(python).is_some_and(|version| version >= PYTHON_MIN))
            .context("no Python 3.11 or newer (tried python3 and python3.11 to python3.14): install it, with venv")?;
        progress::once("installing the Python tools (venv, pip install)");
        let mut venv = Command::new(python);
        venv.args(["-m", "venv", "--clear", ".venv"]).current_dir(&folder);
        run(&mut venv, "install Python's venv (Debian: python3-venv)")?;
        let mut pip = Command::new(folder.join(".venv/bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
        pip.args(["-r", "requirements.lock"]).current_dir(&folder);
        run(&mut pip, "is the package index reachable?")
    })
}

/// `v20.20.2` or `Python 3.11.7` → major and minor; none where the program cannot be run.
fn version(program: &str) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    number(&String::from_utf8_lossy(&output.stdout))
}

fn number(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().rsplit(['v', ' ']).next()?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Calls `install` unless `stamp` has the text of `lock_file`.
fn once(lock_file: &Path, stamp: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let locked = lock(lock_file)?;
    let wanted = fs::read(lock_file)?;
    if fs::read(stamp).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted).with_context(|| format!("{}", stamp.display()))?;
    drop(locked);
    Ok(())
}

/// Holds a file of the tools' folder until it is dropped: two processes never install into the same place.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| {
        format!("{}: COMPONENTIZE_HOME, or else the folder where componentize was built, must have it", path.display())
    })?;
    file.lock().with_context(|| format!("{}", path.display()))?;
    Ok(file)
}

/// Runs a tool; its output is only shown where it fails.
pub(crate) fn run(command: &mut Command, hint: &str) -> Result<()> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{shown} cannot be run: {hint}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        bail!("{shown} failed ({}): {hint}\n{}", output.status, said.trim_end());
    }
    Ok(())
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
            once(&lock_file, &stamp, || {
                count += 1;
                Ok(())
            })?;
        }
        assert_eq!(count, 2);
        fs::write(&lock_file, "c")?;
        assert!(once(&lock_file, &stamp, || bail!("no network")).is_err());
        assert_eq!(fs::read_to_string(&stamp)?, "b");
        Ok(())
    }

    #[test]
    fn versions_are_read_from_what_programs_say() {
        assert_eq!(number("v20.20.2\n"), Some((20, 20)));
        assert_eq!(number("Python 3.11.7\n"), Some((3, 11)));
        assert_eq!(number("not found"), None);
    }

    #[test]
    fn a_tool_that_fails_is_shown_with_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), "try again").err();
        assert_eq!(
            error.map(|error| error.to_string()),
            Some("sh failed (exit status: 3): try again\nout\nerr".into())
        );
    }
}
