//! A filter's source folder: its manifest, its language and where its component goes.
//!
//! This module does not know: how a filter is built.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use witgate_manifest::Manifest;

use crate::toolchain::language::{BuildError, Language};
use crate::{client_refusals, filter_toml};

/// How many levels below a named folder a filter.toml is searched for: `guests/LANGUAGE/NAME` needs
/// two, and one more is allowed.
const DEPTH_MAX: usize = 3;
/// Folders that tools write.
const TOOL_FOLDERS: [&str; 4] = ["node_modules", "target", "__pycache__", "dist"];
/// Two folders that every state directory of a gateway has.
const STATE_FOLDERS: [&str; 2] = ["artifacts", "functions"];

/// Where components go.
#[derive(Debug, Clone, Copy)]
pub enum OutDir<'a> {
    /// This folder.
    Folder(&'a Path),
    /// `dist` in the folder of the filter.
    InSource,
    /// `dist/LANGUAGE` beside the language's folder: `guests/rust/api-key` is built to
    /// `guests/dist/rust`.
    BesideLanguage,
}

/// A filter whose manifest has been read and checked.
pub(crate) struct Project {
    pub(crate) source: PathBuf,
    pub(crate) language: Language,
    pub(crate) manifest: Manifest,
    pub(crate) out_dir: PathBuf,
}

impl Project {
    /// Reads the manifest in `source`.
    pub(crate) fn read(source: &Path, out_dir: OutDir<'_>) -> Result<Self, BuildError> {
        let source = source.canonicalize().with_context(|| format!("{}", source.display()))?;
        let manifest = filter_toml::read(&source.join("filter.toml"), || client_refusals::refuses_clients(&source))
            .map_err(BuildError::Author)?;
        let language = Language::of(&source).ok_or_else(|| {
            BuildError::Author(format!(
                "{}: there is no source file: a filter has src/filter.ts, filter.py, or Cargo.toml and src/lib.rs",
                source.display()
            ))
        })?;
        let out_dir = match out_dir {
            OutDir::Folder(folder) => folder.to_owned(),
            OutDir::InSource => source.join("dist"),
            OutDir::BesideLanguage => source.ancestors().nth(2).unwrap_or(&source).join("dist").join(language.name()),
        };
        // Some tools run in another working folder, so the path must be absolute.
        let out_dir = std::path::absolute(out_dir)?;
        Ok(Self { source, language, manifest, out_dir })
    }

    /// The name shown to people, such as `rust/api-key`.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.language.name(), self.manifest.name)
    }

    /// The file of the component.
    pub(crate) fn output(&self) -> PathBuf {
        self.out_dir.join(format!("{}.wasm", self.manifest.name))
    }
}

/// The name of the filter in a folder.
///
/// # Errors
///
/// There is no filter.toml, or it is wrong.
pub fn filter_name(source: &Path) -> Result<String, String> {
    match Project::read(source, OutDir::InSource) {
        Ok(project) => Ok(project.manifest.name),
        Err(BuildError::Author(mistake)) => Err(mistake),
        Err(BuildError::Tool(error)) => Err(format!("{error:#}")),
    }
}

/// The folders that have a filter.toml, in `folders` or below them, sorted and without duplicates.
///
/// # Errors
///
/// One of `folders` cannot be read, or has no filter.toml in it or below it.
pub fn find_projects(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for folder in folders {
        let before = found.len();
        if folder.is_file() {
            bail!("{}: this is a file: name the folder of the filter, which has its filter.toml", folder.display());
        }
        search(folder, 0, &mut found).with_context(|| format!("{}", folder.display()))?;
        if found.len() == before {
            bail!("{}: there is no filter.toml in it or below it: name the folder of a filter", folder.display());
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether a file or folder in the folder of a filter is not a source of the filter: a hidden one,
/// a folder of tools, or the state directory of a gateway that was started there.
pub fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.')
        || TOOL_FOLDERS.contains(&&*name)
        || STATE_FOLDERS.iter().all(|folder| path.join(folder).is_dir())
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join("filter.toml").exists() {
        found.push(folder.canonicalize()?);
        return Ok(());
    }
    if depth == DEPTH_MAX {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !is_left_out(&path) {
            search(&path, depth + 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_filter(root: &Path, path: &str, name: &str) -> Result<()> {
        let folder = root.join(path);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("filter.py"), "")?;
        std::fs::write(folder.join("filter.toml"), format!("name = \"{name}\"\nversion = \"1.0.0\"\n[request]\n"))?;
        Ok(())
    }

    #[test]
    fn filters_are_found_below_a_folder_but_not_in_folders_of_tools() -> Result<()> {
        let root = tempfile::tempdir()?;
        for path in ["python/a", "python/b", "dist/python/c", "python/node_modules/d", ".git/e"] {
            write_filter(root.path(), path, "x")?;
        }
        let found = find_projects(&[root.path().to_owned(), root.path().join("python/b")])?;
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let error = find_projects(&[root.path().join(".git/nothing")]).err().map(|error| format!("{error:#}"));
        assert!(error.is_some_and(|error| error.contains("nothing")));
        let error = find_projects(&[root.path().join("python/a/filter.toml")]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("name the folder of the filter")));
        Ok(())
    }

    #[test]
    fn two_filters_of_one_name_have_the_same_output() -> Result<()> {
        let root = tempfile::tempdir()?;
        write_filter(root.path(), "python/a", "x")?;
        write_filter(root.path(), "python/b", "x")?;
        let output =
            |path: &str| Project::read(&root.path().join(path), OutDir::BesideLanguage).map(|project| project.output());
        let (a, b) = (output("python/a").ok(), output("python/b").ok());
        assert_eq!(a, b);
        assert!(a.is_some_and(|path| path.ends_with("dist/python/x.wasm")));
        Ok(())
    }
}
