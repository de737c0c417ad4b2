//! Rust for WebAssembly if rustup cannot reach its server: Debian's compiler and library source,
//! unpacked without root. It needs `apt-get`.
//!
//! Debian has no standard library for wasm32-unknown-unknown, so cargo builds it with the first
//! filter (about 100 s). The linker is that of the installed Rust. This module does not know:
//! filters.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cargo::{CargoSetup, sysroot};
use super::command::run;
use super::folders;
use crate::progress;

/// The compiler, the source of the standard library, and the library for build scripts.
const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "libstd-rust-web-dev"];
/// The package whose dependencies include the shared libraries of the compiler, such as LLVM.
const LINKED: &str = "libstd-rust-web-dev";
const HINT: &str = "run `apt-get update`, or `rustup target add wasm32-unknown-unknown` where its server is reachable";

/// Debian's compiler. Unpacks it first if it is missing.
pub(crate) fn cargo_setup() -> Result<CargoSetup> {
    let target = folders::rust();
    let folder = target.join("rust-web");
    fs::create_dir_all(&target).with_context(|| format!("{}", target.display()))?;
    let lock = File::create(target.join("rust-web.lock"))?;
    lock.lock()?;
    let setup = describe(&folder)?;
    if !folder.join("ready").exists() {
        unpack(&folder)?;
        let mut rustc = Command::new(folder.join("usr/bin/rustc"));
        run(rustc.arg("--version").envs(setup.environment.clone()), "Debian's compiler does not run here")?;
        fs::write(folder.join("ready"), "")?;
    }
    Ok(setup)
}

fn describe(folder: &Path) -> Result<CargoSetup> {
    let text = |path: PathBuf| path.display().to_string();
    let libraries = ["usr/lib", "lib"].map(|lib| text(folder.join(lib).join(multiarch())));
    Ok(CargoSetup {
        arguments: vec!["-Zbuild-std=std,panic_abort".into()],
        environment: vec![
            ("RUSTC".into(), text(folder.join("usr/bin/rustc"))),
            // Building the standard library needs unstable features, and Debian's compiler is a
            // stable one.
            ("RUSTC_BOOTSTRAP".into(), "1".into()),
            ("LD_LIBRARY_PATH".into(), libraries.join(":")),
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER".into(), text(linker()?)),
        ],
    })
}

fn unpack(folder: &Path) -> Result<()> {
    progress::setup_notice("unpacking Debian's Rust for Wasm (apt-get download)");
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let mut download = Command::new("apt-get");
    download.arg("download").args(PACKAGES).args(missing_libraries()?).current_dir(folder);
    run(&mut download, HINT)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(folder), "is the disk full?")?;
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The packages with shared libraries that the compiler needs and this system lacks.
///
/// Installed packages are left out: a second libc would break every program that the build starts.
fn missing_libraries() -> Result<Vec<String>> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
    let output =
        depends.args(["--no-replaces", "--no-enhances", LINKED]).output().context("apt-cache cannot be run")?;
    let names = packages(&String::from_utf8_lossy(&output.stdout));
    if names.is_empty() {
        bail!("apt does not know the package {LINKED}: {HINT}");
    }
    Ok(names.into_iter().filter(|name| name != LINKED && !is_installed(name)).collect())
}

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    status.is_ok_and(|output| output.stdout == b"installed")
}

/// The names in the output of `apt-cache depends --recurse`. The dependencies of a package are
/// indented below it. A name in `<>` is virtual: no package has it.
fn packages(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.starts_with([' ', '<', '|'])).map(|line| line.trim().to_owned()).collect()
}

/// Debian's name of this machine's architecture, as in `/usr/lib/NAME`.
fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// The linker LLD of the installed Rust.
fn linker() -> Result<PathBuf> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let path = sysroot(&folders::home())?.join("lib/rustlib").join(host).join("bin/rust-lld");
    if !path.exists() {
        bail!("{} is missing: install Rust with rustup", path.display());
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_the_output_of_apt() {
        let text = "libstd-rust-web-dev\n  Depends: libstd-rust-web-1.96\nlibstd-rust-web-1.96\n |Depends: libllvm22\n    x\nlibllvm22\n<libc-dev>\n";
        assert_eq!(packages(text), ["libstd-rust-web-dev", "libstd-rust-web-1.96", "libllvm22"]);
    }
}
