//! Calls through a table that never changes become calls of functions that are known.
//!
//! A runtime makes a table's entries when they are first used, and an instance that lives for one call uses each for the first time (docs/performance.md). What such a table holds is known when the filter is built. So for each type of function that is called through it there is one more function, which takes the
//! index too, finds what stands there with a jump and calls it as its last act; an index that finds nothing of this type goes through the table after all and traps there.
//! So nothing needs such a table's entries any more, and they are left out: for each function in one an engine makes an entry of its own, a way in for the host and a place in every instance. Must not know: what the code does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;

use anyhow::{Context as _, Result};
use wasm_encoder::reencode::{Error, Reencode, RoundtripReencoder, utils};
use wasm_encoder::{
    BlockType, CodeSection, ElementSection, Elements, Function, FunctionSection, Instruction, Module, NameMap,
    TypeSection,
};
use wasmparser::{
    CodeSectionReader, Element, ElementItems, ElementKind, ExternalKind, FuncType, FunctionSectionReader, Operator,
    Parser, TypeRef, TypeSectionReader, ValType,
};

use super::{parse, plain};

/// A jump table may be so many times as long as what it holds; beyond that it is two.
const SPARSE: usize = 16;
/// Nor longer than engines take.
const LABELS_MAX: usize = 50_000;
/// So few entries are compared one after the other.
const FEW: usize = 3;

/// The module, with its indirect calls made direct where that can be known.
pub(super) fn direct(module: &[u8]) -> Result<Vec<u8>> {
    let mut direct = Direct::new(Facts::read(module)?);
    let mut out = Module::new();
    direct.parse_core_module(&mut out, Parser::new(0), module).map_err(plain)?;
    Ok(out.finish())
}

/// What of a module decides where its indirect calls go.
#[derive(Default)]
struct Facts {
    types: Vec<FuncType>,
    /// The type of each function, imports first.
    functions: Vec<u32>,
    /// For each table what its segments put into it.
    tables: Vec<BTreeMap<u32, u32>>,
    /// Tables that code or the outside may change.
    changed: HashSet<u32>,
    /// Tables that code reads other than by calls.
    read: HashSet<u32>,
    /// Code names functions as values: those stand in a segment.
    names_functions: bool,
    /// Type and table of the calls.
    calls: HashSet<(u32, u32)>,
}

impl Facts {
    fn read(bytes: &[u8]) -> Result<Self> {
        let module = parse::module(bytes)?;
        let mut facts = Self { types: module.types, ..Self::default() };
        for (_, _, ty) in &module.imports {
            match ty {
                TypeRef::Func(ty) | TypeRef::FuncExact(ty) => facts.functions.push(*ty),
                TypeRef::Table(_) => {
                    facts.changed.insert(facts.tables.len() as u32);
                    facts.tables.push(BTreeMap::new());
                }
                _ => {}
            }
        }
        facts.functions.extend(module.funcs);
        facts.tables.extend(module.tables.iter().map(|_| BTreeMap::new()));
        let tables = module.exports.values().filter(|(kind, _)| *kind == ExternalKind::Table);
        facts.changed.extend(tables.map(|(_, index)| *index));
        for element in &module.elements {
            facts.element(element)?;
        }
        for body in &module.code {
            let mut operators = body.get_operators_reader()?;
            while !operators.eof() {
                facts.operator(&operators.read()?);
            }
        }
        Ok(facts)
    }

    fn element(&mut self, element: &Element) -> Result<()> {
        let ElementKind::Active { table_index, offset_expr } = &element.kind else { return Ok(()) };
        let table = table_index.unwrap_or(0);
        let offset = offset_expr.get_operators_reader().into_iter().collect::<Result<Vec<_>, _>>()?;
        let ([Operator::I32Const { value }, Operator::End], ElementItems::Functions(functions)) =
            (&offset[..], element.items.clone())
        else {
            self.changed.insert(table);
            return Ok(());
        };
        let entries = self.tables.get_mut(table as usize).context("a segment of a table that is not there")?;
        for (function, index) in functions.into_iter().zip(value.cast_unsigned()..) {
            entries.insert(index, function?);
        }
        Ok(())
    }

    fn operator(&mut self, operator: &Operator) {
        match operator {
            Operator::TableSet { table }
            | Operator::TableGrow { table }
            | Operator::TableFill { table }
            | Operator::TableInit { table, .. } => {
                self.changed.insert(*table);
            }
            Operator::TableCopy { dst_table, src_table } => {
                self.changed.insert(*dst_table);
                self.read.insert(*src_table);
            }
            Operator::TableGet { table } => {
                self.read.insert(*table);
            }
            Operator::RefFunc { .. } => self.names_functions = true,
            Operator::CallIndirect { type_index, table_index } => {
                self.calls.insert((*type_index, *table_index));
            }
            _ => {}
        }
    }

    /// Whether nobody misses what its segments put into it, once calls are direct.
    fn is_spent(&self, table: u32) -> bool {
        !self.changed.contains(&table) && !self.read.contains(&table) && !self.names_functions
    }

    /// What a call of this type can find.
    fn targets(&self, ty: u32, table: u32) -> Vec<Target> {
        if self.changed.contains(&table) {
            return vec![];
        }
        let is_callable =
            |function: u32| self.types[self.functions[function as usize] as usize] == self.types[ty as usize];
        let entries = self.tables[table as usize].iter();
        entries
            .filter(|(_, function)| is_callable(**function))
            .map(|(index, function)| Target { index: *index, function: *function })
            .collect()
    }
}

/// What stands at an index of a table.
#[derive(Clone, Copy)]
struct Target {
    index: u32,
    function: u32,
}

/// A function in the place of all calls of a type through a table.
struct Dispatch {
    ty: u32,
    table: u32,
    /// In the order of the table.
    targets: Vec<Target>,
}

/// Writes the module anew, with one more function for each type and table.
struct Direct {
    facts: Facts,
    /// In the order of the functions.
    added: Vec<Dispatch>,
    /// The function for a type and a table.
    functions: HashMap<(u32, u32), u32>,
}

impl Direct {
    fn new(facts: Facts) -> Self {
        let mut calls: Vec<_> = facts.calls.iter().copied().collect();
        calls.sort_unstable();
        let mut added = vec![];
        let mut functions = HashMap::new();
        for (ty, table) in calls {
            let targets = facts.targets(ty, table);
            if !targets.is_empty() {
                functions.insert((ty, table), (facts.functions.len() + added.len()) as u32);
                added.push(Dispatch { ty, table, targets });
            }
        }
        Self { facts, added, functions }
    }

    fn body(&self, dispatch: &Dispatch) -> Function {
        let parameters = self.facts.types[dispatch.ty as usize].params().len() as u32;
        let mut body = Body { function: Function::new([]), parameters };
        body.find(&dispatch.targets);
        body.arguments();
        body.index();
        body.function.instructions().call_indirect(dispatch.table, dispatch.ty).end();
        body.function
    }
}

/// The code of such a function.
struct Body {
    function: Function,
    parameters: u32,
}

impl Body {
    fn arguments(&mut self) {
        for parameter in 0..self.parameters {
            self.function.instruction(&Instruction::LocalGet(parameter));
        }
    }

    fn index(&mut self) {
        self.function.instruction(&Instruction::LocalGet(self.parameters));
    }

    fn call(&mut self, function: u32) {
        self.arguments();
        self.function.instruction(&Instruction::ReturnCall(function));
    }

    /// Calls what the index names, or falls through.
    fn find(&mut self, targets: &[Target]) {
        let (Some(first), Some(last)) = (targets.first(), targets.last()) else { return };
        let span = (last.index - first.index) as usize;
        if targets.len() <= FEW {
            for target in targets {
                self.index();
                self.function.instructions().i32_const(target.index.cast_signed()).i32_eq().if_(BlockType::Empty);
                self.call(target.function);
                self.function.instructions().end();
            }
        } else if span <= (targets.len() * SPARSE).min(LABELS_MAX) {
            self.jump(targets, first.index, last.index);
        } else {
            let (low, high) = targets.split_at(targets.len() / 2);
            self.index();
            self.function.instructions().i32_const(high[0].index.cast_signed()).i32_lt_u().if_(BlockType::Empty);
            self.find(low);
            self.function.instructions().else_();
            self.find(high);
            self.function.instructions().end();
        }
    }

    /// The same with a jump table from `first` to `last`.
    fn jump(&mut self, targets: &[Target], first: u32, last: u32) {
        let mut functions: Vec<u32> = targets.iter().map(|target| target.function).collect();
        functions.sort_unstable();
        functions.dedup();
        let nothing = functions.len() as u32;
        let mut labels = vec![nothing; (last - first) as usize + 1];
        for target in targets {
            let label = functions.partition_point(|function| *function < target.function);
            labels[(target.index - first) as usize] = label as u32;
        }
        for _ in 0..=nothing {
            self.function.instructions().block(BlockType::Empty);
        }
        self.index();
        self.function.instructions().i32_const(first.cast_signed()).i32_sub().br_table(labels, nothing);
        for function in functions {
            self.function.instructions().end();
            self.call(function);
        }
        self.function.instructions().end();
    }
}

impl Reencode for Direct {
    type Error = Infallible;

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: TypeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_type_section(self, types, section)?;
        for dispatch in &self.added {
            let called = &self.facts.types[dispatch.ty as usize];
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
        for index in 0..self.added.len() {
            functions.function((self.facts.types.len() + index) as u32);
        }
        Ok(())
    }

    fn parse_element(&mut self, elements: &mut ElementSection, element: Element<'_>) -> Result<(), Error<Infallible>> {
        if let ElementKind::Active { table_index, .. } = &element.kind
            && self.facts.is_spent(table_index.unwrap_or(0))
        {
            // Segments keep their numbers.
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
        for dispatch in &self.added {
            code.function(&self.body(dispatch));
        }
        Ok(())
    }

    fn instruction<'a>(&mut self, operator: Operator<'a>) -> Result<Instruction<'a>, Error<Infallible>> {
        if let Operator::CallIndirect { type_index, table_index } = operator
            && let Some(function) = self.functions.get(&(type_index, table_index))
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
        for index in 0..self.added.len() {
            map.append((self.facts.functions.len() + index) as u32, "a call through a table");
        }
        names.functions(&map);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Engine, Instance, Store};

    /// A table of 400 with a dense part, a far part, two functions of another type, the same function twice and nothing in between.
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

    /// What each export makes of each index: a number, or none where it traps.
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

    /// How many calls through tables each function makes.
    fn indirect_calls(module: &[u8]) -> Result<Vec<usize>> {
        let mut calls = vec![];
        for body in parse::module(module)?.code {
            let operators = body.get_operators_reader()?.into_iter().collect::<Result<Vec<_>, _>>()?;
            calls.push(operators.iter().filter(|operator| matches!(operator, Operator::CallIndirect { .. })).count());
        }
        Ok(calls)
    }

    #[test]
    fn calls_find_what_they_found_in_the_table_and_trap_where_they_did() -> Result<()> {
        let module = wat::parse_str(TABLE)?;
        let direct = direct(&module)?;
        wasmparser::Validator::new().validate_all(&direct)?;
        let answers = |module: &[u8]| answers(module).map_err(|error| anyhow::anyhow!("{error:#}"));
        let (before, after) = (answers(&module)?, answers(&direct)?);
        assert_eq!(before.iter().flatten().count(), 8 + 2 + 2, "{before:?}");
        assert_eq!(before, after);
        assert_eq!(indirect_calls(&module)?, [0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(indirect_calls(&direct)?, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1], "and the two new functions' last way");
        Ok(())
    }

    #[test]
    fn a_table_that_only_calls_read_has_no_entries_any_more() -> Result<()> {
        let entries = |module: &[u8]| -> Result<Vec<u32>> {
            let count = |element: &Element| match &element.items {
                ElementItems::Functions(functions) => functions.count(),
                ElementItems::Expressions(_, items) => items.count(),
            };
            Ok(parse::module(&direct(module)?)?.elements.iter().map(count).collect())
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
