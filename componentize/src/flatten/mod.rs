//! Merges the core modules of a component into one.
//!
//! QuickJS and CPython guests are linked when they are instantiated: 11 and 41 core modules, whose tables are filled with 742 and 5,676 function references every time. As one
//! module they have nothing to fill: wasmtime makes table entries when they are first used, and an instance costs a twentieth (docs/performance.md).
//!
//! Method: take the nested component with the most code; trace each import of its core modules through instances and aliases to a definition or to
//! a function of the host (`link`); copy all code with new indices, fold globals that nothing writes into constants, so that table and data offsets become plain numbers
//! (`merge`, `renumber`); make calls through tables direct (`dispatch`) and leave out what no call comes to (`reach`); put the exports last (`doors`); wrap the module again for the same world, so that one instance of it and one of a module without code are all that a call makes (`assemble`). An import that is neither defined nor the world's was stubbed: it becomes `unreachable`, after a check that the stub
//! is nothing else (`check_traps`). What cannot be merged (start functions that do something, several memories, async) is an error with its reason, and the component is left as it was.
//! Must not know: languages, manifests.

mod assemble;
mod dispatch;
mod doors;
mod image;
mod link;
mod merge;
mod parse;
mod pins;
mod reach;
mod renumber;

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use wasmparser::Operator;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId, WorldItem};

use link::Linked;
use merge::Merged;
use parse::{Space, shells};

/// A component with one core module of its own.
pub(crate) struct Flat {
    pub(crate) component: Vec<u8>,
    /// How many words the guest had overwritten in its image, or why none (`pins`).
    pub(crate) pinned: Result<usize>,
}

/// The same component with one core module of its own. `wit` is the folder with the world that it was built for.
pub(crate) fn flatten(component: &[u8], wit: &Path, world: &str) -> Result<Flat> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut shells = shells(component)?;
    shells.sort_by_key(|shell| shell.modules.iter().map(|module| module.size).sum::<usize>());
    let Some(main) = shells.pop() else { bail!("there is no component inside") };
    for other in shells {
        check_traps(&Linked::new(other)?)?;
    }
    let linked = Linked::new(main)?;
    check_starts(&linked)?;
    let Merged { module, mut outline, plug, pinned } = merge::merge(&linked, &Surface::new(&resolve, world))?;
    let module = doors::behind(&reach::only_reached(&dispatch::direct(&module)?)?)?;
    wasmparser::Validator::new().validate_all(&module)?;
    embed_component_metadata(&mut outline, &resolve, world, StringEncoding::UTF8)?;
    let outlined = ComponentEncoder::default().module(&outline)?.validate(true).encode()?;
    let component = assemble::assemble(&outlined, &module, plug.as_ref())?;
    wasmparser::Validator::new().validate_all(&component)?;
    Ok(Flat { component, pinned })
}

/// The names by which a world's core module imports and exports.
pub(crate) struct Surface {
    imports: HashSet<String>,
    exports: HashSet<String>,
}

impl Surface {
    fn new(resolve: &Resolve, world: WorldId) -> Self {
        let world = &resolve.worlds[world];
        let import = |(key, item): (&wit_parser::WorldKey, &WorldItem)| match item {
            // A function of the world itself is imported under this name of a module.
            WorldItem::Function(_) => "$root".to_owned(),
            _ => resolve.name_world_key(key),
        };
        Self {
            imports: world.imports.iter().map(import).collect(),
            exports: world.exports.keys().map(|key| resolve.name_world_key(key)).collect(),
        }
    }

    /// Whether a core import of this module name is the host's.
    pub(crate) fn is_import(&self, module: &str) -> bool {
        self.imports.contains(module)
    }

    /// Whether a core export such as `witgate:gateway/request-handler@0.1.0#handle-request` is the world's.
    pub(crate) fn is_export(&self, name: &str) -> bool {
        name.split('#').next().is_some_and(|interface| self.exports.contains(interface))
    }
}

/// A component beside the main one may only hold stubs: what it lifts traps at once (so what would clean up after it never runs). Then every import that is
/// not the world's traps too.
fn check_traps(other: &Linked) -> Result<()> {
    for lift in &other.shell.lifts {
        let function = other.item(Space::Func, lift.func)?;
        ensure!(
            other.begins_with(&function, &Operator::Unreachable)?,
            "a component beside the main one does more than trap"
        );
    }
    check_starts(other)
}

/// A snapshot has run already; start functions that the encoder adds for form do nothing.
fn check_starts(linked: &Linked) -> Result<()> {
    for start in linked.starts()? {
        ensure!(
            linked.begins_with(&start, &Operator::End)?,
            "a core module has a start function that does something: it is no snapshot"
        );
    }
    Ok(())
}

/// An error of the encoder as one of this program.
fn plain(error: wasm_encoder::reencode::Error<std::convert::Infallible>) -> anyhow::Error {
    anyhow::anyhow!("{error}")
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

    /// A component of this module for that world, and what flattening makes of it.
    fn flattened(wat: &str) -> Result<Flat> {
        let wit = world()?;
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(wit.path())?;
        let world = resolve.select_world(&[package], Some("w"))?;
        let mut module = wat::parse_str(wat)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
        flatten(&ComponentEncoder::default().module(&module)?.encode()?, wit.path(), "w")
    }

    #[test]
    fn only_segments_that_code_names_keep_a_number() -> Result<()> {
        let flat = flattened(
            r#"(module (memory (export "memory") 1)
                (data (i32.const 8) "unnamed") (data "nobody's") (data $hello "hello") (data $written (i32.const 4096) "written")
                (func (export "f") (result i32)
                    (memory.init $hello (i32.const 0) (i32.const 0) (i32.const 5)) (data.drop $written) (i32.const 7)))"#,
        )?;
        let (mut segments, mut named) = (vec![], vec![]);
        for payload in wasmparser::Parser::new(0).parse_all(&flat.component) {
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

    /// Where an instance has its globals and tables depends on what it imports, and code on that: so filters of one language share their code.
    #[test]
    fn the_guest_imports_nothing_whatever_it_calls() -> Result<()> {
        for calls in 0..=2 {
            let called = (0..calls)
                .map(|index| format!("(import \"a:b/host\" \"{}\" (func $f{index} (result i32)))", ["g", "h"][index]));
            let call = if calls == 0 { "(i32.const 7)".to_owned() } else { format!("(call $f{})", calls - 1) };
            let flat = flattened(&format!(
                "(module {} (memory (export \"memory\") 1) (func (export \"f\") (result i32) {call}))",
                called.collect::<String>(),
            ))?;
            let shells = shells(&flat.component)?;
            let modules: Vec<_> = shells.iter().flat_map(|shell| &shell.modules).collect();
            let imports: Vec<_> = modules.iter().map(|module| (module.code.len(), module.imports.len())).collect();
            let plug = (calls > 0).then_some((0, calls + 1));
            // The export is a function and a way in.
            assert_eq!(imports, [Some((2 + calls, 0)), plug].into_iter().flatten().collect::<Vec<_>>());
        }
        Ok(())
    }

    #[test]
    fn what_cannot_be_merged_says_why() -> Result<()> {
        flattened("(module (memory (export \"memory\") 1) (func (export \"f\") (result i32) (i32.const 7)))")?;
        flattened(
            "(module (memory (export \"memory\") 1) (func $s) (start $s) (func (export \"f\") (result i32) (i32.const 7)))",
        )?;
        let started = flattened(
            "(module (memory (export \"memory\") 1) (func $s (drop (i32.const 1))) (start $s) (func (export \"f\") (result i32) (i32.const 7)))",
        );
        let why = started.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains("start function"), "{why}");
        let wit = world()?;
        let flat = flattened(
            "(module (import \"a:b/host\" \"g\" (func $g (result i32))) (memory (export \"memory\") 1) (func (export \"f\") (result i32) (call $g)))",
        )?;
        let why = flatten(&flat.component, wit.path(), "w").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains("flattened already"), "{why}");
        let why = flatten(b"\0asm\x01\0\0\0", wit.path(), "w").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains("not a component"), "{why}");
        Ok(())
    }
}
