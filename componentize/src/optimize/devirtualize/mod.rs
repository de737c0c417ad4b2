//! Replaces indirect calls through a constant table by direct calls.
//!
//! Gain: a call does not initialise table entries. The runtime makes an entry when it is first
//! used, and in an instance that lives for one call every use is the first (docs/performance.md).
//! Price: the module has one more function for each type of indirect call, a dispatcher. It takes
//! the index as its last parameter, finds the function with a jump and calls it as a tail call. An
//! index without a function of that type goes through the table and traps there.
//!
//! Once calls are direct, the entries of such a table are unused and are omitted. For each function
//! in a table, an engine would make an entry, a host-to-Wasm trampoline and a slot in every
//! instance. This module does not know: the purpose of a function.

mod analysis;
mod dispatcher;

use std::collections::HashMap;
use std::convert::Infallible;

use anyhow::Result;
use wasm_encoder::reencode::{Error, Reencode, RoundtripReencoder, utils};
use wasm_encoder::{CodeSection, ElementSection, Elements, FunctionSection, Instruction, Module, NameMap, TypeSection};
use wasmparser::{
    CodeSectionReader, Element, ElementKind, FuncType, FunctionSectionReader, Operator, Parser, TypeSectionReader,
    ValType,
};

use super::encode::reencode_error;
use analysis::{TableAnalysis, Target};

/// The module, with direct calls where the target is known.
pub(super) fn devirtualize(module: &[u8]) -> Result<Vec<u8>> {
    let mut rewriter = Rewriter::new(TableAnalysis::new(module)?);
    let mut out = Module::new();
    rewriter.parse_core_module(&mut out, Parser::new(0), module).map_err(reencode_error)?;
    Ok(out.finish())
}

/// A function that replaces all calls of one type through one table.
struct Dispatcher {
    ty: u32,
    table: u32,
    /// Sorted by index.
    targets: Vec<Target>,
}

/// Rewrites the module, with a dispatcher for each type and table.
struct Rewriter {
    analysis: TableAnalysis,
    /// In the order of their function indices.
    dispatchers: Vec<Dispatcher>,
    /// The function index of the dispatcher for a type and a table.
    indices: HashMap<(u32, u32), u32>,
}

impl Rewriter {
    fn new(analysis: TableAnalysis) -> Self {
        let mut calls: Vec<_> = analysis.calls.iter().copied().collect();
        calls.sort_unstable();
        let mut dispatchers = vec![];
        let mut indices = HashMap::new();
        for (ty, table) in calls {
            let targets = analysis.targets(ty, table);
            if !targets.is_empty() {
                indices.insert((ty, table), (analysis.functions.len() + dispatchers.len()) as u32);
                dispatchers.push(Dispatcher { ty, table, targets });
            }
        }
        Self { analysis, dispatchers, indices }
    }
}

impl Reencode for Rewriter {
    type Error = Infallible;

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: TypeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_type_section(self, types, section)?;
        for dispatcher in &self.dispatchers {
            let called = &self.analysis.types[dispatcher.ty as usize];
            let parameters = called.params().iter().copied().chain([ValType::I32]);
            let ty = FuncType::new(parameters, called.results().iter().copied());
            types.ty().func_type(&utils::func_type(&mut RoundtripReencoder, ty)?);
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_function_section(self, functions, section)?;
        for index in 0..self.dispatchers.len() {
            functions.function((self.analysis.types.len() + index) as u32);
        }
        Ok(())
    }

    fn parse_element(&mut self, elements: &mut ElementSection, element: Element<'_>) -> Result<(), Error<Infallible>> {
        if let ElementKind::Active { table_index, .. } = &element.kind
            && self.analysis.entries_are_unused(table_index.unwrap_or(0))
        {
            // An empty segment keeps the indices of the others.
            elements.declared(Elements::Functions(vec![].into()));
            return Ok(());
        }
        utils::parse_element(self, elements, element)
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_code_section(self, code, section)?;
        for dispatcher in &self.dispatchers {
            let Dispatcher { ty, table, targets } = dispatcher;
            let parameters = self.analysis.types[*ty as usize].params().len() as u32;
            code.function(&dispatcher::body(targets, parameters, *ty, *table));
        }
        Ok(())
    }

    fn instruction<'a>(&mut self, operator: Operator<'a>) -> Result<Instruction<'a>, Error<Infallible>> {
        if let Operator::CallIndirect { type_index, table_index } = operator
            && let Some(function) = self.indices.get(&(type_index, table_index))
        {
            return Ok(Instruction::Call(*function));
        }
        utils::instruction(self, operator)
    }

    fn parse_custom_name_subsection(
        &mut self,
        names: &mut wasm_encoder::NameSection,
        section: wasmparser::Name<'_>,
    ) -> Result<(), Error<Infallible>> {
        let wasmparser::Name::Function(known) = section else {
            return utils::parse_custom_name_subsection(self, names, section);
        };
        let mut map = NameMap::new();
        for name in known {
            let name = name?;
            map.append(name.index, name.name);
        }
        for index in 0..self.dispatchers.len() {
            map.append((self.analysis.functions.len() + index) as u32, "indirect call dispatcher");
        }
        names.functions(&map);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimize::parse;
    use wasmparser::ElementItems;
    use wasmtime::{Engine, Instance, Store};

    /// A table of 400 with a dense part and a distant part, a gap between them, one function twice
    /// and two entries of another type.
    const TABLE: &str = r#"(module
        (import "host" "twice" (func $twice (param i32) (result i32)))
        (type $unary (func (param i32) (result i32)))
        (type $pair (func (param i64 i64) (result i64 i64)))
        (table $t 400 funcref)
        (table $changed 4 funcref)
        (elem (table $t) (i32.const 3) func $a $b $c $a $d $swap $twice)
        (elem (table $t) (i32.const 390) func $b $swap $c)
        (elem (table $changed) (i32.const 0) func $a)
        (elem declare func $b)
        (func $a (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
        (func $b (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
        (func $c (param i32) (result i32) (i32.sub (local.get 0) (i32.const 7)))
        (func $d (param i32) (result i32) (local.get 0))
        (func $swap (param i64 i64) (result i64 i64) (local.get 1) (local.get 0))
        (func (export "unary") (param i32 i32) (result i32) (call_indirect $t (type $unary) (local.get 1) (local.get 0)))
        (func (export "pair") (param i32 i32) (result i32)
            (call_indirect $t (type $pair) (i64.const 5) (i64.extend_i32_s (local.get 1)) (local.get 0)) drop i32.wrap_i64)
        (func (export "changed") (param i32 i32) (result i32)
            (table.set $changed (i32.const 1) (ref.func $b))
            (call_indirect $changed (type $unary) (local.get 1) (local.get 0))))"#;

    /// The result of each export for each index, or `None` if it traps.
    fn answers(module: &[u8]) -> wasmtime::Result<Vec<Option<i32>>> {
        let engine = Engine::default();
        let module = wasmtime::Module::new(&engine, module)?;
        let mut store = Store::new(&engine, ());
        let twice = wasmtime::Func::wrap(&mut store, |value: i32| value * 2);
        let instance = Instance::new(&mut store, &module, &[twice.into()])?;
        let mut answers = vec![];
        for name in ["unary", "pair", "changed"] {
            let function = instance.get_typed_func::<(i32, i32), i32>(&mut store, name)?;
            answers.extend((-2..410).map(|index| function.call(&mut store, (index, 1000 + index)).ok()));
        }
        Ok(answers)
    }

    /// The number of indirect calls in each function.
    fn indirect_calls(module: &[u8]) -> Result<Vec<usize>> {
        let mut calls = vec![];
        for body in parse::module(module)?.code {
            let operators = body.get_operators_reader()?.into_iter().collect::<Result<Vec<_>, _>>()?;
            calls.push(operators.iter().filter(|operator| matches!(operator, Operator::CallIndirect { .. })).count());
        }
        Ok(calls)
    }

    #[test]
    fn direct_calls_have_the_same_results_and_traps_as_indirect_calls() -> Result<()> {
        let module = wat::parse_str(TABLE)?;
        let direct = devirtualize(&module)?;
        wasmparser::Validator::new().validate_all(&direct)?;
        let answers = |module: &[u8]| answers(module).map_err(|error| anyhow::anyhow!("{error:#}"));
        let (before, after) = (answers(&module)?, answers(&direct)?);
        assert_eq!(before.iter().flatten().count(), 8 + 2 + 2, "{before:?}");
        assert_eq!(before, after);
        assert_eq!(indirect_calls(&module)?, [0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(
            indirect_calls(&direct)?,
            [0, 0, 0, 0, 0, 0, 0, 1, 1, 1],
            "the two dispatchers keep an indirect call for an index without a target"
        );
        Ok(())
    }

    #[test]
    fn the_entries_of_a_table_are_omitted_if_only_calls_read_it() -> Result<()> {
        let entries = |module: &[u8]| -> Result<Vec<u32>> {
            let count = |element: &Element| match &element.items {
                ElementItems::Functions(functions) => functions.count(),
                ElementItems::Expressions(_, items) => items.count(),
            };
            Ok(parse::module(&devirtualize(module)?)?.elements.iter().map(count).collect())
        };
        let with = |code: &str| {
            let function = format!("(func (export \"f\") (param i32) {code})");
            wat::parse_str(format!("(module (table 4 funcref) (elem (i32.const 1) $g) (func $g) {function})"))
        };
        assert_eq!(entries(&with("(call_indirect (local.get 0))")?)?, [0]);
        for code in [
            "(drop (table.get (local.get 0)))",
            "(table.set (local.get 0) (ref.null func))",
            "(table.copy (i32.const 0) (i32.const 1) (i32.const 1))",
            "(drop (ref.func $g))",
        ] {
            assert_eq!(entries(&with(code)?)?, [1], "{code}");
        }
        Ok(())
    }
}
