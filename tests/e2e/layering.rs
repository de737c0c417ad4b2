//! Imports go down only. The table is the architecture: a new file that is not in it fails until somebody says where it belongs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use harness::repository;

/// A module of the host and its layer; 0 knows nothing of the gateway.
const LAYERS: &[(&str, u8)] = &[
    ("error", 0),
    ("clients", 0),
    ("conduct", 0),
    ("telemetry", 0),
    ("keyvalue", 0),
    ("exchange", 0),
    ("memory", 0),
    ("net", 0),
    ("pace", 0),
    ("priority", 0),
    ("body", 1),
    ("config", 1),
    ("http1", 2),
    ("http2", 2),
    ("wasm", 2),
    ("stage", 3),
    ("snapshot", 4),
    ("serve", 5),
    ("control", 6),
    ("cli", 7),
    ("lib", 7),
    ("main", 7),
];

fn sources(folder: &Path, found: &mut Vec<(String, String)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            // What cargo and componentize made is not ours to explain.
            if !path.ends_with("target") && !path.ends_with("dist") {
                sources(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), std::fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn host() -> Result<Vec<(String, String)>> {
    let root = repository().join("host/src");
    let mut found = vec![];
    sources(&root, &mut found)?;
    let prefix = format!("{}/", root.display());
    Ok(found.into_iter().map(|(path, text)| (path.replace(&prefix, ""), text)).collect())
}

/// The part before tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

/// `crate::a::b` → `a`, `a::b`.
fn imports(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.split("crate::").skip(1).filter_map(|rest| {
        let path: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
        let module = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        Some((module, path))
    })
}

#[test]
fn imports_go_down_only() -> Result<()> {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    for (file, text) in host()? {
        let module = file.split(['/', '.']).next().unwrap_or_default();
        let own = *layers.get(module).with_context(|| format!("host/src/{file} has no layer: add it to the table"))?;
        for (import, path) in imports(code(&text)) {
            let Some(layer) = layers.get(import) else { continue };
            assert!(
                *layer < own || import == module,
                "host/src/{file} (layer {own}) imports crate::{path} (layer {layer})"
            );
        }
    }
    Ok(())
}

#[test]
fn stages_do_not_know_each_other_and_control_does_not_know_serve() -> Result<()> {
    for (file, text) in host()? {
        for (import, path) in imports(code(&text)) {
            assert!(!(file.starts_with("stage/") && import == "stage"), "host/src/{file} imports crate::{path}");
            assert!(!(file.starts_with("control/") && import == "serve"), "host/src/{file} imports crate::{path}");
        }
        // A stage is a file, or a folder whose files know each other.
        let up = match file.strip_prefix("stage/").map(|file| file.matches('/').count()) {
            _ if file.ends_with("/mod.rs") => continue,
            None => continue,
            Some(0) => "super::",
            Some(_) => "super::super",
        };
        assert!(!code(&text).contains(up), "host/src/{file} imports a neighbour");
    }
    Ok(())
}

#[test]
fn only_the_wasm_layer_names_the_runtime() -> Result<()> {
    for (file, text) in host()? {
        if !file.starts_with("wasm/") {
            let names = code(&text)
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| line.contains("wasmtime"));
            assert!(!names, "host/src/{file} names wasmtime");
        }
    }
    Ok(())
}

#[test]
fn every_file_opens_with_what_it_is() -> Result<()> {
    let mut found = host()?;
    for folder in ["componentize/src", "tests", "guests/sdk/rust/src"] {
        sources(&repository().join(folder), &mut found)?;
    }
    for (file, text) in found {
        assert!(text.starts_with("//!"), "{file} does not open with //!");
    }
    Ok(())
}
