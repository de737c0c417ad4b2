//! Exports each function through a trampoline: a last function of the module that forwards the
//! call.
//!
//! Gain: the compile cache finds more functions. wasmtime 48 compiles a host-to-Wasm trampoline
//! right after an exported function. The trampoline leaves exception-table entries in the
//! compiler's workspace (`DataFlowGraph::clear` of cranelift-codegen 0.135), which change the cache
//! keys of the functions that the same thread compiles next. If the exported functions are the
//! last, no function of the module follows. Price: a call from the host makes one more jump. This
//! module does not know: what the exports mean.

use std::convert::Infallible;

use anyhow::Result;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, ExportSection, Function, FunctionSection, Module};
use wasmparser::{CodeSectionReader, Export, ExternalKind, FunctionSectionReader, Parser};

use super::encode::{load_parameters, reencode_error};
use super::parse::{self, Space};

/// Appends a trampoline for each exported function and exports the trampoline instead.
pub(super) fn add_trampolines(module: &[u8]) -> Result<Vec<u8>> {
    let parsed = parse::module(module)?;
    let imported = parsed.imported[Space::Func.index()].len() as u32;
    let mut exported: Vec<u32> =
        parsed.exports.values().filter(|(kind, _)| *kind == ExternalKind::Func).map(|(_, index)| *index).collect();
    exported.sort_unstable();
    exported.dedup();
    let mut trampolines = vec![];
    for function in exported.into_iter().filter(|function| *function >= imported) {
        let ty = parsed.funcs[(function - imported) as usize];
        trampolines.push(Trampoline { function, ty, parameters: parsed.types[ty as usize].params().len() as u32 });
    }
    let mut out = Module::new();
    let first = imported + parsed.funcs.len() as u32;
    Rewriter { trampolines, first }.parse_core_module(&mut out, Parser::new(0), module).map_err(reencode_error)?;
    Ok(out.finish())
}

/// A function that only calls `function`.
struct Trampoline {
    function: u32,
    ty: u32,
    parameters: u32,
}

struct Rewriter {
    trampolines: Vec<Trampoline>,
    /// The index of the first trampoline.
    first: u32,
}

impl Reencode for Rewriter {
    type Error = Infallible;

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_function_section(self, functions, section)?;
        for trampoline in &self.trampolines {
            functions.function(trampoline.ty);
        }
        Ok(())
    }

    fn parse_export(&mut self, exports: &mut ExportSection, export: Export<'_>) -> Result<(), Error<Infallible>> {
        let calls_export =
            |trampoline: &Trampoline| export.kind == ExternalKind::Func && trampoline.function == export.index;
        let index = match self.trampolines.iter().position(calls_export) {
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
        for trampoline in &self.trampolines {
            let mut body = Function::new([]);
            load_parameters(&mut body, trampoline.parameters);
            body.instructions().return_call(trampoline.function).end();
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
    fn trampolines_are_the_last_functions_and_behave_like_the_exports() -> wasmtime::Result<()> {
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
        let rewritten = add_trampolines(&module).map_err(|error| wasmtime::Error::msg(format!("{error:#}")))?;
        let parsed = parse::module(&rewritten).map_err(|error| wasmtime::Error::msg(format!("{error:#}")))?;
        let index = |name: &str| parsed.exports.get(name).map(|(_, index)| *index);
        // An import and three functions come first.
        assert_eq!(["add", "sum", "seven", "host", "memory"].map(index), [4, 4, 5, 0, 0].map(Some));
        let engine = Engine::default();
        let mut store = Store::new(&engine, ());
        let host = wasmtime::Func::wrap(&mut store, |value: i32| value * 2);
        let module = wasmtime::Module::new(&engine, &rewritten)?;
        let instance = Instance::new(&mut store, &module, &[host.into()])?;
        let add = instance.get_typed_func::<(i32, i64), i64>(&mut store, "sum")?;
        assert_eq!(add.call(&mut store, (-5, 1 << 40))?, (1 << 40) - 5);
        let seven = instance.get_typed_func::<(), (i32, i32)>(&mut store, "seven")?;
        assert_eq!(seven.call(&mut store, ())?, (7, 8));
        Ok(())
    }
}
