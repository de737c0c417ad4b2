//! Gives a recursive function a frame on the stack in memory.
//!
//! CPython measures recursion by the stack in memory, which has 1 MiB, and frees chains of objects
//! in another way when little of it is left. The machine's stack of the gateway is another one, and
//! the functions that free an object use only that. So the measure would never change, and freeing
//! a chain of 34,000 dictionaries would exhaust the machine's stack, which is a trap.
//!
//! Gain: any chain can be freed. Price: six instructions for each object that is freed. A module
//! without the function, or without a stack pointer, stays as it is. This module does not know:
//! objects.

use std::collections::BTreeMap;
use std::convert::Infallible;

use anyhow::Result;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, Function, FunctionSection, Module};
use wasmparser::{
    CodeSectionReader, FunctionBody, FunctionSectionReader, KnownCustom, Name, Operator, Parser, Payload,
};

use super::encode::{load_parameters, reencode_error};
use super::parse::{self, Space};

/// The function through which CPython frees every object.
const FUNCTION: &str = "_Py_Dealloc";
/// What a frame takes: the stack in memory ends after 21,000 frames, and the machine's stack later.
const FRAME_BYTES: i32 = 48;
/// So many functions at least begin by moving the stack pointer.
const USES_MIN: usize = 3;

/// The module, with a frame for each call of the function.
pub(super) fn add_frames(module: &[u8]) -> Result<Vec<u8>> {
    let parsed = parse::module(module)?;
    let imported = parsed.imported[Space::Func.index()].len();
    let function = function_named(module)?.and_then(|index| (index as usize).checked_sub(imported));
    let (Some(function), Some(stack_pointer)) = (function, stack_pointer(&parsed.code)?) else {
        return Ok(module.to_vec());
    };
    let Some(&ty) = parsed.funcs.get(function) else { return Ok(module.to_vec()) };
    let parameters = parsed.types[ty as usize].params().len() as u32;
    let inner = (imported + parsed.funcs.len()) as u32;
    let mut out = Module::new();
    let mut rewriter = Rewriter { function, ty, inner, parameters, stack_pointer, position: 0 };
    rewriter.parse_core_module(&mut out, Parser::new(0), module).map_err(reencode_error)?;
    Ok(out.finish())
}

/// The index of [`FUNCTION`], by the names for debugging.
fn function_named(module: &[u8]) -> Result<Option<u32>> {
    for payload in Parser::new(0).parse_all(module) {
        let Payload::CustomSection(section) = payload? else { continue };
        let KnownCustom::Name(names) = section.as_known() else { continue };
        for subsection in names {
            let Name::Function(functions) = subsection? else { continue };
            for naming in functions {
                let naming = naming?;
                if naming.name == FUNCTION {
                    return Ok(Some(naming.index));
                }
            }
        }
    }
    Ok(None)
}

/// The global from which most functions subtract the size of their frame when they begin.
fn stack_pointer(code: &[FunctionBody<'_>]) -> Result<Option<u32>> {
    let mut uses: BTreeMap<u32, usize> = BTreeMap::new();
    for body in code {
        let mut operators = body.get_operators_reader()?;
        let mut next = || if operators.eof() { Ok(Operator::End) } else { operators.read() };
        let (first, second, third) = (next()?, next()?, next()?);
        if let (Operator::GlobalGet { global_index }, Operator::I32Const { value: 1.. }, Operator::I32Sub) =
            (first, second, third)
        {
            *uses.entry(global_index).or_default() += 1;
        }
    }
    let most = uses.into_iter().max_by_key(|(_, count)| *count);
    Ok(most.filter(|(_, count)| *count >= USES_MIN).map(|(global, _)| global))
}

struct Rewriter {
    /// The function that gets a frame, among those that the module defines.
    function: usize,
    ty: u32,
    /// The index of the new function, which has its body.
    inner: u32,
    parameters: u32,
    stack_pointer: u32,
    /// How many bodies were written.
    position: usize,
}

impl Rewriter {
    fn frame(&self) -> Function {
        let mut body = Function::new([]);
        let mut code = body.instructions();
        code.global_get(self.stack_pointer).i32_const(FRAME_BYTES).i32_sub().global_set(self.stack_pointer);
        load_parameters(&mut body, self.parameters);
        let mut code = body.instructions();
        code.call(self.inner);
        code.global_get(self.stack_pointer).i32_const(FRAME_BYTES).i32_add().global_set(self.stack_pointer).end();
        body
    }
}

impl Reencode for Rewriter {
    type Error = Infallible;

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_function_section(self, functions, section)?;
        functions.function(self.ty);
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        let moved = section.clone().into_iter().nth(self.function);
        utils::parse_code_section(self, code, section)?;
        if let Some(body) = moved {
            utils::parse_function_body(self, code, body?)?;
        }
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), Error<Infallible>> {
        self.position += 1;
        if self.position - 1 == self.function {
            code.function(&self.frame());
            return Ok(());
        }
        utils::parse_function_body(self, code, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Engine, Instance, Module, Store};

    #[test]
    fn each_call_of_the_function_takes_a_frame() -> wasmtime::Result<()> {
        let frame = "(global.set $stack (i32.sub (global.get $stack) (i32.const 16)))";
        let back = "(global.set $stack (i32.add (global.get $stack) (i32.const 16)))";
        let module = wat::parse_str(format!(
            r#"(module
                (global $stack (mut i32) (i32.const 4096))
                (global $lowest (export "lowest") (mut i32) (i32.const 4096))
                (func {frame} {back}) (func {frame} {back}) (func {frame} {back})
                (func $_Py_Dealloc (export "free") (param i32)
                    (global.set $lowest (global.get $stack))
                    (if (local.get 0) (then (call $_Py_Dealloc (i32.sub (local.get 0) (i32.const 1))))))
                (func (export "stack") (result i32) (global.get $stack)))"#
        ))?;
        let rewritten = add_frames(&module).map_err(|error| wasmtime::Error::msg(format!("{error:#}")))?;
        let engine = Engine::default();
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &Module::new(&engine, &rewritten)?, &[])?;
        instance.get_typed_func::<i32, ()>(&mut store, "free")?.call(&mut store, 9)?;
        let lowest = instance.get_global(&mut store, "lowest").map(|global| global.get(&mut store).i32());
        assert_eq!(lowest, Some(Some(4096 - 10 * FRAME_BYTES)));
        assert_eq!(instance.get_typed_func::<(), i32>(&mut store, "stack")?.call(&mut store, ())?, 4096);
        Ok(())
    }
}
