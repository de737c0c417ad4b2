//! Replaces the bodies of unreachable functions by a trap.
//!
//! Gain: compiling takes less time. An interpreter is linked with whole libraries and with the code
//! that prepared its snapshot, and most of both is unreachable. Calls through tables are already
//! direct (`devirtualize`), so every call names its callee and only exports lead in.
//! Price: the pass reads all code once, at build time. An unreachable function keeps its index and
//! its type. So the code of all other functions is unchanged, and the compile cache finds it for
//! another filter too. This module does not know: the purpose of a function.

use std::convert::Infallible;

use anyhow::{Context as _, Result, bail};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, Module};
use wasmparser::{ElementItems, ExternalKind, FunctionBody, Operator, Parser};

use super::encode::{reencode_error, trap_body};
use super::parse::{self, Space};

/// The module, with a trap as the body of each unreachable function.
pub(super) fn remove(module: &[u8]) -> Result<Vec<u8>> {
    let parsed = parse::module(module)?;
    let mut reachable = reachable(&parsed)?;
    let defined = reachable.split_off(parsed.imported[Space::Func.index()].len());
    let mut out = Module::new();
    let mut rewriter = Rewriter { reachable: defined.into_iter() };
    rewriter.parse_core_module(&mut out, Parser::new(0), module).map_err(reencode_error)?;
    Ok(out.finish())
}

/// For each function, imports first, whether a call can reach it.
fn reachable(module: &parse::Module) -> Result<Vec<bool>> {
    let imported = module.imported[Space::Func.index()].len();
    let mut reachable = vec![false; imported + module.funcs.len()];
    let mut pending = roots(module)?;
    while let Some(function) = pending.pop() {
        let visited = reachable.get_mut(function as usize).context("a function index is out of range")?;
        if std::mem::replace(visited, true) {
            continue;
        }
        let Some(body) = (function as usize).checked_sub(imported).and_then(|index| module.code.get(index)) else {
            continue;
        };
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            pending.extend(named_function(&operators.read()?));
        }
    }
    Ok(reachable)
}

/// The functions that the host can call, and those that tables and globals hold.
fn roots(module: &parse::Module) -> Result<Vec<u32>> {
    let mut roots: Vec<u32> = module.start.into_iter().collect();
    let functions =
        module.exports.values().filter(|(kind, _)| matches!(kind, ExternalKind::Func | ExternalKind::FuncExact));
    roots.extend(functions.map(|(_, index)| *index));
    for element in &module.elements {
        let ElementItems::Functions(functions) = element.items.clone() else {
            bail!("an element segment has expressions");
        };
        for function in functions {
            roots.push(function?);
        }
    }
    for global in &module.globals {
        for operator in global.init_expr.get_operators_reader() {
            roots.extend(named_function(&operator?));
        }
    }
    Ok(roots)
}

/// The function that an instruction names.
fn named_function(operator: &Operator) -> Option<u32> {
    match operator {
        Operator::Call { function_index }
        | Operator::ReturnCall { function_index }
        | Operator::RefFunc { function_index } => Some(*function_index),
        _ => None,
    }
}

struct Rewriter<R> {
    /// For each defined function, in order, whether it is reachable.
    reachable: R,
}

impl<R: Iterator<Item = bool>> Reencode for Rewriter<R> {
    type Error = Infallible;

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), Error<Infallible>> {
        if self.reachable.next().unwrap_or(true) {
            return utils::parse_function_body(self, code, body);
        }
        code.function(&trap_body());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each function, in order, whether it only traps.
    fn traps(text: &str) -> Result<Vec<bool>> {
        let rewritten = remove(&wat::parse_str(text)?)?;
        wasmparser::Validator::new().validate_all(&rewritten)?;
        let bodies = parse::module(&rewritten)?.code;
        let first = |body: &FunctionBody| Ok(matches!(body.get_operators_reader()?.read()?, Operator::Unreachable));
        bodies.iter().map(first).collect()
    }

    #[test]
    fn only_unreachable_functions_trap() -> Result<()> {
        let text = r#"(module
            (import "host" "f" (func $host))
            (func $dead (call $deeper))
            (func $deeper)
            (func (export "f") (call $a))
            (func $a (call $host) (return_call $b))
            (func $b (call $a))
            (func $alone (call $alone)))"#;
        assert_eq!(traps(text)?, [true, true, false, false, false, true]);
        Ok(())
    }

    #[test]
    fn functions_that_are_values_are_reachable() -> Result<()> {
        let text = r#"(module
            (table 4 funcref)
            (elem (i32.const 1) $held)
            (elem declare func $value)
            (global funcref (ref.func $kept))
            (func $held)
            (func $value)
            (func $kept)
            (func $begin)
            (func $dead)
            (start $begin))"#;
        assert_eq!(traps(text)?, [false, false, false, false, true]);
        Ok(())
    }
}
