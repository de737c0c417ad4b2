//! Installs peers below target/bench, without root and without changes to the system.
//!
//! An installation is repeated only if its requirements or its lock file change.
//!
//! This module does not know: how a peer is configured.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::process::Environment;

/// A folder with unpacked Debian packages.
#[derive(Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    /// The path of a file in this folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A program in this folder, with its library path set to this folder.
    pub(crate) fn command(&self, program: &str) -> Command {
        let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = ["usr/lib", "lib"].map(|lib| self.0.join(lib).join(&multiarch).display().to_string());
        let mut command = Command::new(self.0.join(program));
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        command
    }
}

impl Environment {
    /// Downloads and unpacks Debian packages, with the dependencies whose names begin with one of
    /// `with`. Those that the system has are included, because programs look for modules in this
    /// folder only.
    pub(crate) fn debian(&self, name: &str, packages: &[&str], with: &[&str]) -> Result<Root> {
        let root = self.folder_of(name)?.join("root");
        once(&root, &packages.join(" "), || {
            let mut names: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
            names.extend(
                dependencies(packages)?.into_iter().filter(|name| {
                    with.iter().any(|with| name.starts_with(with)) && !packages.contains(&name.as_str())
                }),
            );
            let mut download = Command::new("apt-get");
            download.args(["download", "-q"]).args(&names).current_dir(&root);
            run(&mut download).context("downloading Debian packages; `apt-get update` may help")?;
            for entry in fs::read_dir(&root)? {
                let path = entry?.path();
                if path.extension() == Some(OsStr::new("deb")) {
                    run(Command::new("dpkg").arg("-x").arg(&path).arg(&root))?;
                    fs::remove_file(path)?;
                }
            }
            Ok(())
        })?;
        Ok(Root(root))
    }

    /// Installs a wheel in a virtual environment, and returns the environment's folder.
    pub(crate) fn python(&self, name: &str, requirement: &str) -> Result<PathBuf> {
        let venv = self.folder_of(name)?.join("venv");
        once(&venv, requirement, || {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            let mut pip = Command::new(venv.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
            run(pip.arg(requirement))
        })?;
        Ok(venv)
    }

    /// Installs the npm packages of a lock file. Returns their folder, to which `files` are copied
    /// from the folder of the lock file.
    pub(super) fn npm(&self, name: &str, source: &Path, files: &[&str]) -> Result<PathBuf> {
        let folder = self.folder_of(name)?.join("npm");
        let lock_file = source.join("package-lock.json");
        let lock = fs::read_to_string(&lock_file).with_context(|| format!("{}", lock_file.display()))?;
        once(&folder, &lock, || {
            for file in ["package.json", "package-lock.json"] {
                fs::copy(source.join(file), folder.join(file))?;
            }
            let mut npm = Command::new("npm");
            run(npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder))
        })?;
        for file in files {
            fs::copy(source.join(file), folder.join(file)).with_context(|| (*file).to_owned())?;
        }
        Ok(folder)
    }
}

/// Returns the path of a peer's source file or folder.
pub(super) fn source(path: &str) -> PathBuf {
    harness::repository().join("tests/bench/peers").join(path)
}

/// Empties the folder and calls `install`, unless that was done before for the same `key`.
fn once(folder: &Path, key: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join(".installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == key) {
        return Ok(());
    }
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    install()?;
    Ok(fs::write(stamp, key)?)
}

/// Returns the names of all packages that these depend on. In the output of apt-cache, the
/// dependencies of a package are indented below it, and `<name>` is a virtual package.
fn dependencies(packages: &[&str]) -> Result<Vec<String>> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
    let output = depends.args(["--no-replaces", "--no-enhances"]).args(packages).output();
    let output = output.context("cannot run apt-cache; these packages exist only on Debian and its derivatives")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter(|line| !line.starts_with([' ', '<', '|'])).map(|line| line.trim().to_owned());
    Ok(names.collect())
}

/// Runs a tool. Its output appears only in the error, if it fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let bytes = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        bail!("{program} failed: {}", line.trim());
    }
    Ok(())
}
