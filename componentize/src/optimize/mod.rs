//! Optimizes a component: one core module with direct calls, without links between modules.
//!
//! Gain: creating an instance of an interpreter takes a twentieth of the time. QuickJS and CPython
//! guests have 11 and 41 core modules, and each instantiation fills their tables with 742 and 5,676
//! function references. Price: a component with a construct that cannot be merged stays as it is,
//! and its calls cost more.
//!
//! The steps:
//!
//! 1. `parse` reads the components of the file. The one with the most code is the main one.
//! 2. `link` resolves each import of its core modules to a definition or to a function of the host.
//! 3. `merge` copies all code into one module with new indices (`renumber`), and all data into one
//!    image (`memory_image`). Globals that no code writes become constants, so the offsets of
//!    segments become numbers. The Python SDK leaves a table of objects in the image;
//!    `immortal_objects` sets their reference counts, so that calls do not write to them.
//! 4. `devirtualize` makes calls through tables direct, and `dead_code` removes unreachable
//!    functions. `stack_frames` lets CPython notice a deep recursion. `export_trampolines` exports
//!    each function through a trampoline at the end of the module, so that the keys of the other
//!    functions in the compile cache stay the same.
//! 5. `wit_component` finds the host functions in the imports of a module. The merged module has no
//!    imports, because it calls the host through a table (`host_table`). So `wit_component` encodes
//!    a dummy: a core module with these imports, the exports of the merged one, and no code.
//!    `assemble` then replaces the dummy by the merged module.
//!
//! A stub is a function that only traps. The tools of a language add stubs for imports that are
//! neither defined nor part of the world. Imports from WASI get stubs that report a system without
//! files, sockets and processes (`wasi_stubs`). `check_traps` verifies that a component beside the
//! main one has only stubs.
//!
//! Start functions with code, several memories and async exports cannot be merged. This module does
//! not know: languages, manifests.

mod assemble;
mod dead_code;
mod devirtualize;
mod encode;
mod export_trampolines;
mod host_table;
mod immortal_objects;
mod link;
mod memory_image;
mod merge;
mod parse;
mod renumber;
mod stack_frames;
mod wasi_stubs;
mod world;

use std::path::Path;

use anyhow::{Result, bail, ensure};
use wasmparser::Operator;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use link::Linked;
use merge::Merged;
use parse::{Space, component_cores};
use world::WorldNames;

/// An optimized component.
#[derive(Debug)]
pub struct Optimized {
    /// The bytes of the component.
    pub component: Vec<u8>,
    /// How many objects this step made immortal (never counted, never freed), or why none was.
    pub immortal_objects: Result<usize>,
}

/// Optimizes `component`. `wit` is the folder with the world for which it was built.
///
/// # Errors
///
/// The component has something that cannot be merged; the text says what.
pub fn optimize(component: &[u8], wit: &Path, world: &str) -> Result<Optimized> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut cores = component_cores(component)?;
    cores.sort_by_key(|core| core.modules.iter().map(|module| module.size).sum::<usize>());
    let Some(main) = cores.pop() else { bail!("the file has no component") };
    for other in cores {
        check_traps(&Linked::new(other)?)?;
    }
    let linked = Linked::new(main)?;
    check_starts(&linked)?;
    let Merged { module, mut dummy, initializer, immortal_objects } =
        merge::merge(&linked, &WorldNames::new(&resolve, world))?;
    // Dead code is found through direct calls, so it comes after `devirtualize`. The trampolines
    // must be the last functions.
    let module = devirtualize::devirtualize(&module)?;
    let module = stack_frames::add_frames(&module)?;
    let module = dead_code::remove(&module)?;
    let module = export_trampolines::add_trampolines(&module)?;
    wasmparser::Validator::new().validate_all(&module)?;
    embed_component_metadata(&mut dummy, &resolve, world, StringEncoding::UTF8)?;
    let encoded = ComponentEncoder::default().module(&dummy)?.validate(true).encode()?;
    let component = assemble::assemble(&encoded, &module, initializer.as_ref())?;
    wasmparser::Validator::new().validate_all(&component)?;
    Ok(Optimized { component, immortal_objects })
}

/// Checks that a component beside the main one has only stubs: each function that it exports traps
/// at its first instruction. Its post-return function therefore never runs, and traps can take the
/// place of everything that the main component imports from it.
fn check_traps(other: &Linked) -> Result<()> {
    for lift in &other.core.lifts {
        let function = other.item(Space::Func, lift.func)?;
        ensure!(
            other.is_stub(lift.func) || other.begins_with(&function, &Operator::Unreachable)?,
            "the file contains a second component with code, and only stubs can be merged: build the filter as one component"
        );
    }
    check_starts(other)
}

/// Checks that no start function has code. The encoder adds empty ones. The start code of a
/// snapshot ran when it was built, so a start function with code means that the component is
/// not a snapshot.
fn check_starts(linked: &Linked) -> Result<()> {
    for start in linked.starts()? {
        ensure!(
            linked.begins_with(&start, &Operator::End)?,
            "a core module runs code in its start function, which cannot be merged: use a tool that runs it at build time (a snapshot)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a world that imports two functions and exports `f: func() -> u32`.
    fn world() -> Result<tempfile::TempDir> {
        let wit = tempfile::tempdir()?;
        std::fs::write(
            wit.path().join("a.wit"),
            "package a:b;\ninterface host { g: func() -> u32; h: func() -> u32; }\nworld w { import host; export f: func() -> u32; }\n",
        )?;
        Ok(wit)
    }

    /// The optimized component of this module for that world.
    fn optimized(wat: &str) -> Result<Optimized> {
        let wit = world()?;
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(wit.path())?;
        let world = resolve.select_world(&[package], Some("w"))?;
        let mut module = wat::parse_str(wat)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
        optimize(&ComponentEncoder::default().module(&module)?.encode()?, wit.path(), "w")
    }

    #[test]
    fn only_data_segments_that_code_names_keep_an_index() -> Result<()> {
        let result = optimized(
            r#"(module (memory (export "memory") 1)
                (data (i32.const 8) "unnamed") (data "unused") (data $hello "hello") (data $written (i32.const 4096) "written")
                (func (export "f") (result i32)
                    (memory.init $hello (i32.const 0) (i32.const 0) (i32.const 5)) (data.drop $written) (i32.const 7)))"#,
        )?;
        let (mut segments, mut named) = (vec![], vec![]);
        for payload in wasmparser::Parser::new(0).parse_all(&result.component) {
            match payload? {
                wasmparser::Payload::DataSection(section) => {
                    for data in section {
                        let data = data?;
                        segments.push((matches!(data.kind, wasmparser::DataKind::Passive), data.data.to_vec()));
                    }
                }
                wasmparser::Payload::CodeSectionEntry(body) => {
                    for operator in body.get_operators_reader()? {
                        match operator? {
                            Operator::MemoryInit { data_index, .. } | Operator::DataDrop { data_index } => {
                                named.push(data_index as usize);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let named: Vec<_> = named.iter().map(|index| segments[*index].clone()).collect();
        assert_eq!(named, [(true, b"hello".to_vec()), (true, vec![])]);
        assert_eq!(segments.iter().filter(|(passive, _)| *passive).count(), 2, "{segments:?}");
        assert_eq!(segments.iter().filter(|(passive, _)| !passive).count(), 2, "{segments:?}");
        Ok(())
    }

    #[test]
    fn the_guest_imports_nothing_whichever_host_functions_it_calls() -> Result<()> {
        for calls in 0..=2 {
            let called = (0..calls)
                .map(|index| format!("(import \"a:b/host\" \"{}\" (func $f{index} (result i32)))", ["g", "h"][index]));
            let call = if calls == 0 { "(i32.const 7)".to_owned() } else { format!("(call $f{})", calls - 1) };
            let result = optimized(&format!(
                "(module {} (memory (export \"memory\") 1) (func (export \"f\") (result i32) {call}))",
                called.collect::<String>(),
            ))?;
            let cores = component_cores(&result.component)?;
            let modules: Vec<_> = cores.iter().flat_map(|core| &core.modules).collect();
            let imports: Vec<_> = modules.iter().map(|module| (module.code.len(), module.imports.len())).collect();
            let initializer = (calls > 0).then_some((0, calls + 1));
            // The export is a function and its trampoline.
            assert_eq!(imports, [Some((2 + calls, 0)), initializer].into_iter().flatten().collect::<Vec<_>>());
        }
        Ok(())
    }

    #[test]
    fn the_error_says_what_cannot_be_merged() -> Result<()> {
        optimized("(module (memory (export \"memory\") 1) (func (export \"f\") (result i32) (i32.const 7)))")?;
        optimized(
            "(module (memory (export \"memory\") 1) (func $s) (start $s) (func (export \"f\") (result i32) (i32.const 7)))",
        )?;
        let started = optimized(
            "(module (memory (export \"memory\") 1) (func $s (drop (i32.const 1))) (start $s) (func (export \"f\") (result i32) (i32.const 7)))",
        );
        let error = started.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("start function"), "{error}");
        let wit = world()?;
        let result = optimized(
            "(module (import \"a:b/host\" \"g\" (func $g (result i32))) (memory (export \"memory\") 1) (func (export \"f\") (result i32) (call $g)))",
        )?;
        let error =
            optimize(&result.component, wit.path(), "w").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("optimized already"), "{error}");
        let error =
            optimize(b"\0asm\x01\0\0\0", wit.path(), "w").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("not a component"), "{error}");
        Ok(())
    }
}
