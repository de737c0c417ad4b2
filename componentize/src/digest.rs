//! A name for everything that a component is made of: sources, SDK, WIT, tools, this program. The same name, the same component.
//!
//! Not in it: what a Rust filter takes by `path` from outside its folder and the SDK (`--force` builds anew). Must not know: builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::language::Language;
use crate::{rust, setup, world};

/// What of this program shapes a component. Not the executable: cargo links it differently depending on what it is built with.
const PROGRAM: [&str; 17] = [
    include_str!("build.rs"),
    include_str!("debian.rs"),
    include_str!("flatten/assemble.rs"),
    include_str!("flatten/dispatch.rs"),
    include_str!("flatten/doors.rs"),
    include_str!("flatten/image.rs"),
    include_str!("flatten/link.rs"),
    include_str!("flatten/merge.rs"),
    include_str!("flatten/mod.rs"),
    include_str!("flatten/parse.rs"),
    include_str!("flatten/pins.rs"),
    include_str!("flatten/reach.rs"),
    include_str!("flatten/renumber.rs"),
    include_str!("manifest.rs"),
    include_str!("rust.rs"),
    include_str!("script.rs"),
    include_str!("../Cargo.toml"),
];

/// Folders that tools make. What is hidden is left out too.
const NOT_SOURCE: [&str; 4] = ["node_modules", "target", "__pycache__", "dist"];

/// The digest for a filter in `source`.
pub(crate) fn digest(source: &Path, language: Language) -> Result<String> {
    let mut digest = Digest(blake3::Hasher::new());
    digest.feed(env!("CARGO_PKG_VERSION").as_bytes());
    for text in PROGRAM {
        digest.feed(text.as_bytes());
    }
    for (name, text) in world::PACKAGE {
        digest.feed(name.as_bytes());
        digest.feed(text.as_bytes());
    }
    digest.folder(source, &[])?;
    // The SDK's `generated` folders are made from the WIT by the first build.
    let sdk = setup::repository().join("guests/sdk").join(language.name());
    digest.folder(&sdk, &["generated"])?;
    match language {
        Language::TypeScript | Language::Python => digest.folder(&setup::tools(language.name()), &[])?,
        Language::Rust => {
            // The workspace has the profile and the lock file.
            for file in ["Cargo.toml", "Cargo.lock"] {
                digest.feed(
                    &source
                        .parent()
                        .map(|folder| fs::read(folder.join(file)))
                        .transpose()
                        .ok()
                        .flatten()
                        .unwrap_or_default(),
                );
            }
            let rustc = Command::new("rustc").arg("-vV").current_dir(source).output();
            digest.feed(&rustc.map(|output| output.stdout).unwrap_or_default());
            digest.feed(&[u8::from(rust::debian_is_forced())]);
        }
    }
    Ok(digest.0.finalize().to_hex().to_string())
}

struct Digest(blake3::Hasher);

impl Digest {
    /// With its length, so that two texts are never taken for another two.
    fn feed(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// A folder's files in the order of their names; nothing where it is absent.
    fn folder(&mut self, folder: &Path, but: &[&str]) -> Result<()> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A build of another process makes `generated.PID` and renames it.
            let left_out = but.iter().any(|prefix| name == *prefix || name.starts_with(&format!("{prefix}.")));
            if left_out || name.starts_with('.') || NOT_SOURCE.contains(&name.as_str()) {
                continue;
            }
            self.feed(name.as_bytes());
            let kind = fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                self.folder(&path, but)?;
            } else if kind.is_symlink() && path.is_dir() {
                self.feed(fs::read_link(&path)?.as_os_str().as_encoded_bytes());
            } else {
                self.feed(&fs::read(&path).with_context(|| format!("{}", path.display()))?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_flattening_counts() -> Result<()> {
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/flatten"))? {
            let path = file?.path();
            assert!(PROGRAM.contains(&fs::read_to_string(&path)?.as_str()), "{} is not in PROGRAM", path.display());
        }
        Ok(())
    }

    #[test]
    fn sources_count_and_what_tools_make_does_not() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, text: &str| -> Result<String> {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            fs::write(path, text)?;
            digest(folder.path(), Language::Python)
        };
        let first = write("filter.py", "a = 1")?;
        assert_eq!(first, write("__pycache__/filter.pyc", "x")?);
        assert_eq!(first, write(".filter.py.swp", "x")?);
        assert_eq!(first, write("node_modules/x/index.js", "x")?);
        assert_ne!(first, write("filter.toml", "name = \"a\"")?);
        assert_ne!(write("filter.py", "a = 2")?, write("filter.py", "a = 3")?);
        assert_ne!(write("a", "bc")?, write("a", "b")?);
        Ok(())
    }
}
