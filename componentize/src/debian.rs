//! Rust for Wasm where rustup cannot reach its server: Debian's compiler and library source, unpacked without root.
//!
//! Debian ships no library for wasm32-unknown-unknown, so cargo builds it with the filter (once, about 100 s). The linker is that of
//! the installed Rust. Only where there is `apt-get`. Must not know: filters.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::rust::{self, Toolchain};
use crate::{progress, setup};

/// The compiler, the library's source and for the build scripts the library of this machine.
const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "libstd-rust-web-dev"];
/// Of what the compiler depends on, what no other package of a small system brings: LLVM and the compiler's own library.
const NEEDED: [&str; 2] = ["libllvm", "libstd-rust-web-"];

/// Debian's compiler, unpacked first where it is missing.
pub(crate) fn toolchain() -> Result<Toolchain> {
    let folder = setup::home().join(".rust-web");
    let ready = folder.join("ready");
    let lock = setup::lock(&setup::home().join("Cargo.toml"))?;
    if !ready.exists() {
        unpack(&folder)?;
        std::fs::write(&ready, "")?;
    }
    drop(lock);
    let root = folder.join("usr");
    let text = |path: PathBuf| path.display().to_string();
    Ok(Toolchain {
        arguments: vec!["-Zbuild-std=std,panic_abort".into()],
        environment: vec![
            ("RUSTC".into(), text(root.join("bin/rustc"))),
            // Debian's compiler is a stable one; building the library needs what only nightly allows.
            ("RUSTC_BOOTSTRAP".into(), "1".into()),
            ("LD_LIBRARY_PATH".into(), text(root.join("lib").join(multiarch()))),
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER".into(), text(linker()?)),
        ],
    })
}

fn unpack(folder: &Path) -> Result<()> {
    progress::once("unpacking Debian's Rust (apt-get download)");
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    let mut download = Command::new("apt-get");
    download.arg("download").args(PACKAGES).args(needed()?).current_dir(folder);
    setup::run(&mut download, "run `apt-get update`, or add the target with rustup where it is reachable")?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            setup::run(Command::new("dpkg").arg("-x").arg(&path).arg(folder), "is the disk full?")?;
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The names, with their version in them, of the libraries that this compiler was built with.
fn needed() -> Result<Vec<String>> {
    let mut names = vec![];
    for package in [PACKAGES[0], "libstd-rust-web-dev"] {
        let output =
            Command::new("apt-cache").args(["depends", package]).output().context("apt-cache cannot be run")?;
        names.extend(depends(&String::from_utf8_lossy(&output.stdout)));
    }
    if names.is_empty() {
        bail!("apt knows no {}: run `apt-get update`, or this Debian is older than that package", PACKAGES[0]);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// What of `apt-cache depends` is needed.
fn depends(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "))
        .filter(|name| NEEDED.iter().any(|prefix| name.starts_with(prefix)) && !PACKAGES.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Debian's name for this kind of machine, as in `/usr/lib/NAME`.
fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// LLD of the installed Rust.
fn linker() -> Result<PathBuf> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let path = rust::sysroot(&setup::home())?.join("lib/rustlib").join(host).join("bin/rust-lld");
    if !path.exists() {
        bail!("{} is missing: install Rust by rustup", path.display());
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_taken_from_what_apt_says() {
        let text = "rustc-web\n  Depends: libc6\n  Depends: libllvm22\n |Depends: libstd-rust-web-1.96\n  Depends: libstd-rust-web-dev\n  Suggests: libllvm99\n";
        assert_eq!(depends(text), ["libllvm22", "libstd-rust-web-1.96"]);
    }
}
