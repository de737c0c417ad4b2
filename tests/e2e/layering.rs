//! Imports go down only: between crates, between the folders of the gateway, and between files.
//!
//! The tables are the architecture. A new crate or folder that is not in them fails these tests
//! until somebody decides where it belongs. These tests do not know: what the code does.

mod graph;
mod rust;
mod scripts;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use graph::cycles;
use harness::repository;

/// Each crate of the gateway and those of its dependencies that are in this repository.
const CRATES: &[(&str, &[&str])] = &[
    ("host/http", &[]),
    ("host/manifest", &[]),
    ("host/config", &["witgate-http"]),
    ("host/runtime", &["witgate-http", "witgate-manifest"]),
    ("host/examples", &["witgate-manifest", "witgate-runtime"]),
    ("host/gateway", &["witgate-config", "witgate-examples", "witgate-http", "witgate-runtime"]),
];

/// The top-level modules of the gateway, from the bottom up. A module imports modules of lower
/// layers only, never of its own layer.
const LAYERS: &[&[&str]] = &[
    &["clients", "net", "process"],
    &["telemetry"],
    &["state", "tls", "upstream"],
    &["releases"],
    &["pipeline"],
    &["server"],
    &["control"],
    &["admin"],
    &["gateway"],
    &["cli"],
    &["lib"],
];

#[test]
fn crates_depend_on_the_crates_below_them() -> Result<()> {
    let mut known: Vec<PathBuf> = CRATES.iter().map(|(folder, _)| repository().join(folder)).collect();
    let mut found: Vec<PathBuf> = vec![];
    for entry in fs::read_dir(repository().join("host"))? {
        found.extend(Some(entry?.path()).filter(|path| path.join("Cargo.toml").exists()));
    }
    known.sort();
    found.sort();
    assert_eq!(found, known, "the folders of host/ and the table CRATES differ");
    for (folder, allowed) in CRATES {
        let used = dependencies(folder)?;
        let own: Vec<&str> = used.iter().map(String::as_str).filter(|name| name.starts_with("witgate")).collect();
        assert_eq!(own, *allowed, "{folder}/Cargo.toml");
        let names_wasmtime = used.iter().any(|name| name.starts_with("wasmtime"));
        assert_eq!(names_wasmtime, *folder == "host/runtime", "only host/runtime depends on wasmtime: {folder}");
    }
    Ok(())
}

#[test]
fn the_gateway_imports_go_down_only() -> Result<()> {
    let source = repository().join("host/gateway/src");
    let layer = |file: &Path| -> Result<(String, usize)> {
        let relative = file.strip_prefix(&source)?;
        let top = relative.iter().next().context("a file has a name")?.to_string_lossy();
        let module = top.trim_end_matches(".rs").to_owned();
        let layer = LAYERS.iter().position(|modules| modules.contains(&&*module));
        let layer = layer.with_context(|| format!("{} has no layer: add it to LAYERS", relative.display()))?;
        Ok((module, layer))
    };
    let mut upwards = vec![];
    for (file, imports) in rust::read_crate(&source.join("lib.rs"))? {
        let (module, own) = layer(&file)?;
        for (target, path) in imports {
            let (imported, below) = layer(&target)?;
            if module != imported && below >= own {
                upwards.push(format!("{} ({module}) imports {path} ({imported})", shown(&file)));
            }
        }
    }
    ensure!(upwards.is_empty(), "imports that do not go down:\n{}", upwards.join("\n"));
    Ok(())
}

#[test]
fn control_does_not_import_the_server() -> Result<()> {
    let source = repository().join("host/gateway/src");
    for (file, imports) in rust::read_crate(&source.join("lib.rs"))? {
        let is_control = file.starts_with(source.join("control"));
        let server = imports.iter().find(|(target, _)| is_control && target.starts_with(source.join("server")));
        ensure!(server.is_none(), "{} imports {server:?}", shown(&file));
    }
    Ok(())
}

/// The files of the pipeline that put its steps together.
const COMPOSITION: &[&str] = &["exchange.rs", "mod.rs", "snapshot.rs"];

#[test]
fn pipeline_steps_do_not_import_each_other() -> Result<()> {
    let source = repository().join("host/gateway/src");
    let pipeline = source.join("pipeline");
    // A step is a file, or a folder whose files import each other.
    let step = |file: &Path| -> Option<String> {
        let top = file.strip_prefix(&pipeline).ok()?.iter().next()?.to_string_lossy().into_owned();
        (!COMPOSITION.contains(&&*top)).then(|| top.trim_end_matches(".rs").to_owned())
    };
    let mut found = vec![];
    for (file, imports) in rust::read_crate(&source.join("lib.rs"))? {
        let Some(own) = step(&file) else { continue };
        for (target, path) in imports {
            let is_neighbour = target.starts_with(&pipeline) && step(&target).is_none_or(|other| other != own);
            if is_neighbour {
                found.push(format!("{} imports {path}", shown(&file)));
            }
        }
    }
    ensure!(found.is_empty(), "steps that import their neighbours:\n{}", found.join("\n"));
    Ok(())
}

#[test]
fn no_files_import_each_other_in_a_circle() -> Result<()> {
    let sdk = repository().join("guests/sdk");
    let python = scripts::read_python(&sdk.join("python/witgate"), "witgate")?;
    let typescript = scripts::read_typescript(&sdk.join("typescript/src"))?;
    for graph in [&python, &typescript] {
        ensure!(graph.values().any(|imports| !imports.is_empty()), "no imports were found in an SDK");
    }
    let mut found = cycles(&python);
    found.extend(cycles(&typescript));
    for root in crate_roots()? {
        found.extend(cycles(&rust::read_crate(&root)?));
    }
    let found: Vec<String> =
        found.iter().map(|cycle| cycle.iter().map(|file| shown(file)).collect::<Vec<_>>().join(" -> ")).collect();
    ensure!(found.is_empty(), "cycles of imports:\n{}", found.join("\n"));
    Ok(())
}

#[test]
fn every_file_is_part_of_a_crate_and_opens_with_its_purpose() -> Result<()> {
    let mut reached = BTreeSet::new();
    for root in crate_roots()? {
        reached.extend(rust::read_crate(&root)?.into_keys());
    }
    for file in sources()? {
        let text = fs::read_to_string(&file)?;
        assert!(text.starts_with("//!"), "{} does not open with //!", shown(&file));
        assert!(reached.contains(&file), "{} belongs to no crate", shown(&file));
    }
    Ok(())
}

/// The names in the section `[dependencies]` of a crate, sorted.
fn dependencies(folder: &str) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(repository().join(folder).join("Cargo.toml"))?;
    let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split([' ', '.', '=']).next());
    let mut names: Vec<String> = names.filter(|name| !name.is_empty() && *name != "#").map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// All Rust files of the repository, without those that a build made.
fn sources() -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for folder in ["host", "componentize/src", "guests/sdk/rust", "guests/rust", "tests"] {
        add_sources(&repository().join(folder), &mut found)?;
    }
    Ok(found)
}

fn add_sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if !["target", "dist", "node_modules"].iter().any(|made| path.ends_with(made)) {
                add_sources(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The root files of all crates: libraries, binaries, test suites, examples and fuzz targets.
fn crate_roots() -> Result<Vec<PathBuf>> {
    let is_root = |file: &PathBuf| {
        let parent = file.parent().and_then(Path::file_name).unwrap_or_default();
        file.ends_with("lib.rs")
            || file.ends_with("main.rs")
            || ["examples", "targets", "tests"].iter().any(|folder| parent == *folder)
    };
    Ok(sources()?.into_iter().filter(is_root).collect())
}

fn shown(file: &Path) -> String {
    file.strip_prefix(repository()).unwrap_or(file).display().to_string()
}
