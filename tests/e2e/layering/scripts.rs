//! The import graph of the Python and TypeScript SDKs, file by file, from their source.
//!
//! It reads import statements as text. Only imports of files in the same folder tree count. This
//! module does not know: which imports are allowed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::graph::Graph;

/// Reads the modules of a Python package: `from ._name import …`, `from . import _name` and
/// `from package._name import …`.
pub(super) fn read_python(folder: &Path, package: &str) -> Result<Graph> {
    let mut graph = Graph::default();
    let prefix = format!("{package}.");
    for (file, text) in read(folder, "py")? {
        let mut names: Vec<String> = vec![];
        for line in logical_lines(&text) {
            let words: Vec<&str> = line.split([' ', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
            match words[..] {
                ["from", module, "import", ref imported @ ..] if module == "." || module == package => {
                    names.extend(imported.iter().map(|name| (*name).to_owned()));
                }
                ["from" | "import", module, ..] => {
                    names.extend(module.strip_prefix(&prefix).or(module.strip_prefix('.')).map(str::to_owned));
                }
                _ => {}
            }
        }
        add(&mut graph, file, names.into_iter().map(|name| (folder.join(format!("{name}.py")), name)));
    }
    Ok(graph)
}

/// Reads the modules of a TypeScript folder: each `from "./name.ts"` and `from "../name.ts"`.
pub(super) fn read_typescript(folder: &Path) -> Result<Graph> {
    let mut graph = Graph::default();
    for (file, text) in read(folder, "ts")? {
        let parent = file.parent().unwrap_or(folder).to_owned();
        let names = text.split("from \"").skip(1).filter_map(|rest| rest.split('"').next());
        let names: Vec<String> = names.filter(|name| name.starts_with('.')).map(str::to_owned).collect();
        add(&mut graph, file, names.into_iter().map(|name| (parent.join(&name), name)));
    }
    Ok(graph)
}

fn add(graph: &mut Graph, file: PathBuf, imports: impl Iterator<Item = (PathBuf, String)>) {
    let imports = imports.filter_map(|(target, name)| Some((target.canonicalize().ok()?, name)));
    let imports = imports.filter(|(target, _)| *target != file).collect();
    graph.insert(file, imports);
}

/// Joins a Python import that spans several lines.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    let mut is_open = false;
    for line in text.lines().map(str::trim) {
        match lines.last_mut().filter(|_| is_open) {
            Some(last) => {
                last.push(' ');
                last.push_str(line);
            }
            None => lines.push(line.to_owned()),
        }
        let last = lines.last().map_or("", |last| last);
        is_open = last.starts_with("from ") && last.contains('(') && !last.contains(')');
    }
    lines
}

/// Returns the files with an extension below a folder, with their text.
fn read(folder: &Path, extension: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(read(&path, extension)?);
        } else if path.extension().is_some_and(|other| other == extension) {
            let text = fs::read_to_string(&path)?;
            found.push((path.canonicalize()?, text));
        }
    }
    Ok(found)
}
