//! The embedded files of the builder, unpacked into a folder of the user.
//!
//! `witgate build` works in any folder and without a checkout of this repository. So the WIT, the
//! SDKs, the tools' scripts and their lock files are part of the program. They are unpacked once
//! into `files/DIGEST`, with the layout of the repository, because the scripts find each other by
//! relative paths. The tools themselves are installed into `tools/LANGUAGE-DIGEST`, where DIGEST is
//! that of their lock file: a new version of this program with the same tools installs nothing.
//! This module does not know: how tools are installed, filters.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};

/// The embedded files: the path in the repository, and the content.
pub(crate) const FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
/// The environment variable that selects the folder.
const VARIABLE: &str = "WITGATE_HOME";
/// The digits of a digest in the name of a folder.
const DIGEST_DIGITS: usize = 16;

/// Unpacks the embedded files, unless they are there, and returns their folder.
pub(crate) fn unpack() -> Result<PathBuf> {
    let root = folder()?.join("files");
    let target = root.join(digest(FILES.iter().flat_map(|(name, content)| [name.as_bytes(), content])));
    if target.is_dir() {
        return Ok(target);
    }
    fs::create_dir_all(&root).with_context(|| format!("{}: set {VARIABLE} to a writable folder", root.display()))?;
    // Another process may unpack at the same time. A rename shows the folder only when it is
    // complete.
    let fresh = tempfile::Builder::new().prefix(".").tempdir_in(&root)?;
    for (name, content) in FILES {
        let path = fresh.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(fresh.path()))?;
        fs::write(&path, content).with_context(|| format!("{}", path.display()))?;
    }
    match fs::rename(fresh.path(), &target) {
        Ok(()) => drop(fresh.keep()),
        Err(_) if target.is_dir() => {}
        Err(error) => return Err(error).with_context(|| format!("{}", target.display())),
    }
    Ok(target)
}

/// The folder in which the tools of a language with this lock file are installed. It contains
/// copies of `files`.
pub(crate) fn tools(language: &str, source: &Path, files: &[&str]) -> Result<PathBuf> {
    let contents: Vec<Vec<u8>> = files.iter().map(|file| fs::read(source.join(file))).collect::<Result<_, _>>()?;
    let name = format!("{language}-{}", digest(contents.iter().map(Vec::as_slice)));
    let target = folder()?.join("tools").join(name);
    fs::create_dir_all(&target).with_context(|| format!("{}", target.display()))?;
    for (file, content) in files.iter().zip(contents) {
        let path = target.join(file);
        if fs::read(&path).ok().as_ref() != Some(&content) {
            fs::write(&path, content).with_context(|| format!("{}", path.display()))?;
        }
    }
    Ok(target)
}

/// The folder of this user for tools and caches: `WITGATE_HOME`, else `witgate` in the user's
/// folder for caches.
///
/// # Errors
///
/// No variable names a folder.
pub fn folder() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable(VARIABLE)
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("witgate")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/witgate")));
    let folder = folder.with_context(|| {
        format!("there is no folder for tools: neither {VARIABLE} nor XDG_CACHE_HOME nor HOME is set")
    })?;
    // The tools run in other working folders.
    std::path::absolute(&folder).with_context(|| format!("{}", folder.display()))
}

fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..DIGEST_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_files_are_those_of_the_repository() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (name, content) in FILES {
            let found = fs::read(repository.join(name)).ok();
            assert_eq!(found.as_deref(), Some(*content), "{name}: build componentize again");
        }
        for name in [
            "wit/types.wit",
            "guests/sdk/typescript/src/index.ts",
            "guests/sdk/python/witgate/py.typed",
            "guests/sdk/rust/src/lib.rs",
            "componentize/typescript/package-lock.json",
            "componentize/python/build.py",
        ] {
            assert!(FILES.iter().any(|(file, _)| *file == name), "{name}");
        }
        assert!(!FILES.iter().any(|(name, _)| name.contains("node_modules") || name.contains("/generated/")));
    }
}
