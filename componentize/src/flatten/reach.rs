//! Leaves out the code of functions that nothing can call.
//!
//! An interpreter is linked with whole libraries, and what made it ready before its snapshot is still in it: to compile that takes time, and nobody runs it. Which function calls which is known once calls
//! through tables are direct (`dispatch`), and the only ways in are the exports. A function that is not reached from there keeps its number and its type, and traps: so the code of all
//! others stays what it was, and with it what was compiled of it for another filter. Must not know: what the code does.

use std::convert::Infallible;

use anyhow::{Context as _, Result, bail};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, Module};
use wasmparser::{ElementItems, ExternalKind, FunctionBody, Operator, Parser};

use super::merge::trap;
use super::parse::{self, Space};
use super::plain;

/// The module, with a trap in the place of each function that is not reached.
pub(super) fn only_reached(module: &[u8]) -> Result<Vec<u8>> {
    let parsed = parse::module(module)?;
    let mut reached = reached(&parsed)?;
    let defined = reached.split_off(parsed.imported[Space::Func.index()].len());
    let mut out = Module::new();
    Shorter { reached: defined.into_iter() }.parse_core_module(&mut out, Parser::new(0), module).map_err(plain)?;
    Ok(out.finish())
}

/// For each function, imports first, whether a call can come to it.
fn reached(module: &parse::Module) -> Result<Vec<bool>> {
    let imported = module.imported[Space::Func.index()].len();
    let mut reached = vec![false; imported + module.funcs.len()];
    let mut open = roots(module)?;
    while let Some(function) = open.pop() {
        let is_known = reached.get_mut(function as usize).context("a function that is not there")?;
        if std::mem::replace(is_known, true) {
            continue;
        }
        let Some(body) = (function as usize).checked_sub(imported).and_then(|index| module.code.get(index)) else {
            continue;
        };
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            open.extend(named(&operators.read()?));
        }
    }
    Ok(reached)
}

/// What the outside calls, and all that tables and globals hold.
fn roots(module: &parse::Module) -> Result<Vec<u32>> {
    let mut roots: Vec<u32> = module.start.into_iter().collect();
    let functions =
        module.exports.values().filter(|(kind, _)| matches!(kind, ExternalKind::Func | ExternalKind::FuncExact));
    roots.extend(functions.map(|(_, index)| *index));
    for element in &module.elements {
        let ElementItems::Functions(functions) = element.items.clone() else {
            bail!("a segment of expressions");
        };
        for function in functions {
            roots.push(function?);
        }
    }
    for global in &module.globals {
        for operator in global.init_expr.get_operators_reader() {
            roots.extend(named(&operator?));
        }
    }
    Ok(roots)
}

/// The function that an instruction names.
fn named(operator: &Operator) -> Option<u32> {
    match operator {
        Operator::Call { function_index }
        | Operator::ReturnCall { function_index }
        | Operator::RefFunc { function_index } => Some(*function_index),
        _ => None,
    }
}

struct Shorter<R> {
    /// For each defined function in order.
    reached: R,
}

impl<R: Iterator<Item = bool>> Reencode for Shorter<R> {
    type Error = Infallible;

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), Error<Infallible>> {
        if self.reached.next().unwrap_or(true) {
            return utils::parse_function_body(self, code, body);
        }
        code.function(&trap());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which functions only trap, in order.
    fn traps(text: &str) -> Result<Vec<bool>> {
        let short = only_reached(&wat::parse_str(text)?)?;
        wasmparser::Validator::new().validate_all(&short)?;
        let bodies = parse::module(&short)?.code;
        let first = |body: &FunctionBody| Ok(matches!(body.get_operators_reader()?.read()?, Operator::Unreachable));
        bodies.iter().map(first).collect()
    }

    #[test]
    fn what_no_export_comes_to_traps_and_all_else_stays() -> Result<()> {
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
    fn functions_that_are_values_are_reached() -> Result<()> {
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
