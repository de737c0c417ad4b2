//! A fingerprint of everything that a component is made from: source, SDK, WIT, tools, this
//! program.
//!
//! The same fingerprint means the same component, so an unchanged filter is not built again. The
//! examples of a filter are left out: they are added to the component afterwards.
//! Packages are covered by [`of_inputs`], which knows them after a build. A Rust dependency by
//! `path` outside the filter's folder and the SDK is not included; `--force` builds the filter
//! anyway. This module does not know: builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::examples::FOLDER as EXAMPLES;
use crate::project::is_left_out;
use crate::toolchain::language::Language;
use crate::toolchain::{folders, rust};
use crate::wit;

/// The source files of this program that shape a component. The hash of the executable cannot be
/// used, because cargo links it differently depending on the other packages of the build.
const PROGRAM: [&str; 32] = [
    include_str!("../../host/manifest/src/manifest.rs"),
    include_str!("../../host/manifest/src/section.rs"),
    include_str!("../Cargo.toml"),
    include_str!("build.rs"),
    include_str!("filter_toml.rs"),
    include_str!("optimize/assemble.rs"),
    include_str!("optimize/dead_code.rs"),
    include_str!("optimize/devirtualize/analysis.rs"),
    include_str!("optimize/devirtualize/dispatcher.rs"),
    include_str!("optimize/devirtualize/mod.rs"),
    include_str!("optimize/encode.rs"),
    include_str!("optimize/export_trampolines.rs"),
    include_str!("optimize/host_table.rs"),
    include_str!("optimize/immortal_objects.rs"),
    include_str!("optimize/link.rs"),
    include_str!("optimize/memory_image.rs"),
    include_str!("optimize/merge/mod.rs"),
    include_str!("optimize/merge/module.rs"),
    include_str!("optimize/merge/plan.rs"),
    include_str!("optimize/merge/write.rs"),
    include_str!("optimize/mod.rs"),
    include_str!("optimize/parse.rs"),
    include_str!("optimize/renumber.rs"),
    include_str!("optimize/stack_frames.rs"),
    include_str!("optimize/wasi_stubs.rs"),
    include_str!("optimize/world.rs"),
    include_str!("client_refusals.rs"),
    include_str!("toolchain/cargo.rs"),
    include_str!("toolchain/debian.rs"),
    include_str!("toolchain/mod.rs"),
    include_str!("toolchain/rust.rs"),
    include_str!("toolchain/script.rs"),
];

/// The fingerprint of the filter in `source`, hexadecimal.
pub(crate) fn fingerprint(source: &Path, language: Language) -> Result<String> {
    let mut hasher = Hasher(blake3::Hasher::new());
    hasher.feed(env!("CARGO_PKG_VERSION").as_bytes());
    for text in PROGRAM {
        hasher.feed(text.as_bytes());
    }
    for (name, text) in wit::FILES {
        hasher.feed(name.as_bytes());
        hasher.feed(text.as_bytes());
    }
    hasher.folder(source, &[EXAMPLES])?;
    // The first build generates the SDK's `generated` folder from the WIT.
    let sdk = folders::repository().join("guests/sdk").join(language.name());
    hasher.folder(&sdk, &["generated"])?;
    match language {
        Language::TypeScript | Language::Python => hasher.folder(&folders::tools(language.name()), &[])?,
        Language::Rust => {
            // The workspace has the profile and the lock file.
            for file in ["Cargo.toml", "Cargo.lock"] {
                let content = source.parent().and_then(|folder| fs::read(folder.join(file)).ok());
                hasher.feed(&content.unwrap_or_default());
            }
            let rustc = Command::new("rustc").arg("-vV").current_dir(source).output();
            hasher.feed(&rustc.map(|output| output.stdout).unwrap_or_default());
            hasher.feed(&[u8::from(rust::debian_is_forced())]);
        }
    }
    Ok(hasher.0.finalize().to_hex().to_string())
}

/// The name of the file in the work folder that lists what else went into a component.
const INPUTS: &str = "inputs";

/// The fingerprint of the files that the last build took from outside of the source folder, or from
/// folders of tools in it, such as packages of npm.
///
/// The language's script lists them in `work`, one path a line. Without a list there are none. A
/// file that is gone changes the fingerprint too.
pub(crate) fn of_inputs(work: &Path) -> String {
    let mut hasher = Hasher(blake3::Hasher::new());
    for path in fs::read_to_string(work.join(INPUTS)).unwrap_or_default().lines() {
        hasher.feed(path.as_bytes());
        hasher.feed(&[u8::from(Path::new(path).exists())]);
        hasher.feed(&fs::read(path).unwrap_or_default());
    }
    hasher.0.finalize().to_hex().to_string()
}

struct Hasher(blake3::Hasher);

impl Hasher {
    /// Adds the length too, so that `a`, `bc` and `ab`, `c` differ.
    fn feed(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds the files of a folder in the order of their names. A missing folder adds nothing.
    fn folder(&mut self, folder: &Path, except: &[&str]) -> Result<()> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A build in another process writes `generated.PID` and renames it.
            let is_excepted = except.iter().any(|prefix| name == *prefix || name.starts_with(&format!("{prefix}.")));
            if is_excepted || is_left_out(&path) {
                continue;
            }
            self.feed(name.as_bytes());
            let kind = fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                self.folder(&path, &[])?;
            } else if kind.is_symlink() && path.is_dir() {
                self.feed(fs::read_link(&path)?.as_os_str().as_encoded_bytes());
            } else if path.is_file() {
                // Other kinds, such as sockets, are no sources, and reading a pipe would wait.
                self.feed(&fs::read(&path).with_context(|| format!("{}", path.display()))?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds the Rust files of a folder and of the folders below it.
    fn add_sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { add_sources(&path, found)? } else { found.push(path) }
        }
        Ok(())
    }

    #[test]
    fn every_file_of_the_optimizer_is_included() -> Result<()> {
        let mut files = vec![];
        add_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/optimize"), &mut files)?;
        assert!(files.len() > 10, "{files:?}");
        for path in files {
            assert!(PROGRAM.contains(&fs::read_to_string(&path)?.as_str()), "{} is not in PROGRAM", path.display());
        }
        Ok(())
    }

    #[test]
    fn a_package_that_went_in_is_included_after_the_build() -> Result<()> {
        let work = tempfile::tempdir()?;
        let none = of_inputs(work.path());
        let package = work.path().join("index.js");
        fs::write(work.path().join(INPUTS), format!("{}\n", package.display()))?;
        let mut seen = vec![none, of_inputs(work.path())];
        for text in ["", "a", "b"] {
            fs::write(&package, text)?;
            seen.push(of_inputs(work.path()));
        }
        assert_eq!(seen.iter().collect::<std::collections::HashSet<_>>().len(), 5, "{seen:?}");
        Ok(())
    }

    #[test]
    fn sources_are_included_and_folders_of_tools_are_not() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, text: &str| -> Result<String> {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            fs::write(path, text)?;
            fingerprint(folder.path(), Language::Python)
        };
        let first = write("filter.py", "a = 1")?;
        assert_eq!(first, write("__pycache__/filter.pyc", "x")?);
        assert_eq!(first, write(".filter.py.swp", "x")?);
        assert_eq!(first, write("node_modules/x/index.js", "x")?);
        write("state/functions/a", "x")?;
        assert_eq!(first, write("state/artifacts/a.cwasm", "x")?);
        assert_ne!(first, write("filter.toml", "name = \"a\"")?);
        assert_ne!(write("filter.py", "a = 2")?, write("filter.py", "a = 3")?);
        assert_ne!(write("a", "bc")?, write("a", "b")?);
        Ok(())
    }
}
