//! Embeds the files that builds need: the WIT, the SDKs, the tools' lock files and scripts, and the
//! templates of new filters. So the program works without a checkout of the repository.
//!
//! The result is a Rust file with names and contents, which `src/embedded_files.rs` includes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What is embedded, relative to the repository. A folder stands for all files below it.
const ROOTS: [&str; 9] = [
    "wit",
    "guests/rust/Cargo.toml",
    "guests/sdk/typescript",
    "guests/sdk/python",
    "guests/sdk/rust",
    "componentize/typescript",
    "componentize/python",
    "componentize/templates",
    "docs/reference/filter.schema.json",
];
/// Folders that tools write, and the SDKs' own tests.
const LEFT_OUT: [&str; 7] = ["generated", "node_modules", "target", "dist", "__pycache__", "tests", "test"];

fn main() -> io::Result<()> {
    let crate_folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let repository = crate_folder.join("..").canonicalize()?;
    let mut files = vec![];
    for root in ROOTS {
        collect(&repository.join(root), root.ends_with("templates"), &mut files)?;
    }
    files.sort();
    let mut text = "[\n".to_owned();
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&repository).unwrap_or(&file);
        let _ = writeln!(text, "    ({name:?}, include_bytes!({file:?}).as_slice()),");
    }
    text.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("embedded.rs"), text)
}

/// Adds the file or, for a folder, the files below it: `all`, or without those of [`LEFT_OUT`].
fn collect(path: &Path, all: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_left_out = LEFT_OUT.contains(&name.as_str()) || name.starts_with('.') || name.starts_with("generated.");
        if all || !is_left_out {
            collect(&entry, all, files)?;
        }
    }
    Ok(())
}
