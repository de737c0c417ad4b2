//! Gives each exported function a way in of its own, behind all other functions.
//!
//! An engine makes machine code that lets its host in right after the function that is exported. In wasmtime 48 this leaves a trace in what compiles the functions after it (`DataFlowGraph::clear` of cranelift-codegen 0.135 keeps
//! exception tables), and by that trace the same code is not found again among what was compiled for another filter. Behind the last function there is nothing that could not be
//! found. A call from outside makes one jump more. Must not know: what is exported.

use std::convert::Infallible;

use anyhow::Result;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, ExportSection, Function, FunctionSection, Instruction, Module};
use wasmparser::{CodeSectionReader, Export, ExternalKind, FunctionSectionReader, Parser};

use super::parse::{self, Space};
use super::plain;

/// The module, whose exported functions are its last.
pub(super) fn behind(module: &[u8]) -> Result<Vec<u8>> {
    let parsed = parse::module(module)?;
    let imported = parsed.imported[Space::Func.index()].len() as u32;
    let mut exported: Vec<u32> =
        parsed.exports.values().filter(|(kind, _)| *kind == ExternalKind::Func).map(|(_, index)| *index).collect();
    exported.sort_unstable();
    exported.dedup();
    let mut doors = vec![];
    for function in exported.into_iter().filter(|function| *function >= imported) {
        let ty = parsed.funcs[(function - imported) as usize];
        doors.push(Door { function, ty, parameters: parsed.types[ty as usize].params().len() as u32 });
    }
    let mut out = Module::new();
    let first = imported + parsed.funcs.len() as u32;
    Behind { doors, first }.parse_core_module(&mut out, Parser::new(0), module).map_err(plain)?;
    Ok(out.finish())
}

/// A function that calls another as all that it does.
struct Door {
    function: u32,
    ty: u32,
    parameters: u32,
}

struct Behind {
    doors: Vec<Door>,
    /// The number of the first one.
    first: u32,
}

impl Reencode for Behind {
    type Error = Infallible;

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_function_section(self, functions, section)?;
        for door in &self.doors {
            functions.function(door.ty);
        }
        Ok(())
    }

    fn parse_export(&mut self, exports: &mut ExportSection, export: Export<'_>) -> Result<(), Error<Infallible>> {
        let leads_there = |door: &Door| export.kind == ExternalKind::Func && door.function == export.index;
        let index = match self.doors.iter().position(leads_there) {
            Some(position) => self.first + position as u32,
            None => export.index,
        };
        utils::parse_export(self, exports, Export { index, ..export })
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_code_section(self, code, section)?;
        for door in &self.doors {
            let mut body = Function::new([]);
            for parameter in 0..door.parameters {
                body.instruction(&Instruction::LocalGet(parameter));
            }
            body.instructions().return_call(door.function).end();
            code.function(&body);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Engine, Instance, Store};

    #[test]
    fn exports_are_the_last_functions_and_do_what_they_did() -> wasmtime::Result<()> {
        let module = wat::parse_str(
            r#"(module
                (import "host" "f" (func $host (param i32) (result i32)))
                (memory (export "memory") 1)
                (func $add (export "add") (export "sum") (param i32 i64) (result i64)
                    (i64.add (i64.extend_i32_s (local.get 0)) (local.get 1)))
                (func $alone)
                (export "host" (func $host))
                (func (export "seven") (result i32 i32) (i32.const 7) (i32.const 8)))"#,
        )?;
        let behind = behind(&module).map_err(|error| wasmtime::Error::msg(format!("{error:#}")))?;
        let parsed = parse::module(&behind).map_err(|error| wasmtime::Error::msg(format!("{error:#}")))?;
        let index = |name: &str| parsed.exports.get(name).map(|(_, index)| *index);
        // One import and three functions come before.
        assert_eq!(["add", "sum", "seven", "host", "memory"].map(index), [4, 4, 5, 0, 0].map(Some));
        let engine = Engine::default();
        let mut store = Store::new(&engine, ());
        let host = wasmtime::Func::wrap(&mut store, |value: i32| value * 2);
        let module = wasmtime::Module::new(&engine, &behind)?;
        let instance = Instance::new(&mut store, &module, &[host.into()])?;
        let add = instance.get_typed_func::<(i32, i64), i64>(&mut store, "sum")?;
        assert_eq!(add.call(&mut store, (-5, 1 << 40))?, (1 << 40) - 5);
        let seven = instance.get_typed_func::<(), (i32, i32)>(&mut store, "seven")?;
        assert_eq!(seven.call(&mut store, ())?, (7, 8));
        Ok(())
    }
}
