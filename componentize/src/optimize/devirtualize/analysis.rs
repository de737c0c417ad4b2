//! Finds out how a module uses its tables, and which functions an indirect call can reach.
//!
//! This module does not know: how calls are rewritten.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result};
use wasmparser::{Element, ElementItems, ElementKind, ExternalKind, FuncType, Operator, TypeRef};

use crate::optimize::parse;

/// The facts of a module that decide where its indirect calls go.
#[derive(Default)]
pub(super) struct TableAnalysis {
    pub(super) types: Vec<FuncType>,
    /// The type of each function, imports first.
    pub(super) functions: Vec<u32>,
    /// For each table, the function at each index that an element segment fills.
    tables: Vec<BTreeMap<u32, u32>>,
    /// Tables that code or the host may change.
    mutable: HashSet<u32>,
    /// Tables that code reads with other operators than calls.
    read: HashSet<u32>,
    /// Code uses functions as values. Each must then stand in an element segment.
    uses_function_values: bool,
    /// The type and table of each indirect call.
    pub(super) calls: HashSet<(u32, u32)>,
}

impl TableAnalysis {
    /// Analyses the module in `bytes`.
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        let module = parse::module(bytes)?;
        let mut analysis = Self { types: module.types, ..Self::default() };
        for (_, _, ty) in &module.imports {
            match ty {
                TypeRef::Func(ty) | TypeRef::FuncExact(ty) => analysis.functions.push(*ty),
                TypeRef::Table(_) => {
                    analysis.mutable.insert(analysis.tables.len() as u32);
                    analysis.tables.push(BTreeMap::new());
                }
                _ => {}
            }
        }
        analysis.functions.extend(module.funcs);
        analysis.tables.extend(module.tables.iter().map(|_| BTreeMap::new()));
        let tables = module.exports.values().filter(|(kind, _)| *kind == ExternalKind::Table);
        analysis.mutable.extend(tables.map(|(_, index)| *index));
        for element in &module.elements {
            analysis.add_element(element)?;
        }
        for body in &module.code {
            let mut operators = body.get_operators_reader()?;
            while !operators.eof() {
                analysis.add_operator(&operators.read()?);
            }
        }
        Ok(analysis)
    }

    fn add_element(&mut self, element: &Element) -> Result<()> {
        let ElementKind::Active { table_index, offset_expr } = &element.kind else { return Ok(()) };
        let table = table_index.unwrap_or(0);
        let offset = offset_expr.get_operators_reader().into_iter().collect::<Result<Vec<_>, _>>()?;
        let ([Operator::I32Const { value }, Operator::End], ElementItems::Functions(functions)) =
            (&offset[..], element.items.clone())
        else {
            self.mutable.insert(table);
            return Ok(());
        };
        let entries =
            self.tables.get_mut(table as usize).context("an element segment names a table that does not exist")?;
        for (function, index) in functions.into_iter().zip(value.cast_unsigned()..) {
            entries.insert(index, function?);
        }
        Ok(())
    }

    fn add_operator(&mut self, operator: &Operator) {
        match operator {
            Operator::TableSet { table }
            | Operator::TableGrow { table }
            | Operator::TableFill { table }
            | Operator::TableInit { table, .. } => {
                self.mutable.insert(*table);
            }
            Operator::TableCopy { dst_table, src_table } => {
                self.mutable.insert(*dst_table);
                self.read.insert(*src_table);
            }
            Operator::TableGet { table } => {
                self.read.insert(*table);
            }
            Operator::RefFunc { .. } => self.uses_function_values = true,
            Operator::CallIndirect { type_index, table_index } => {
                self.calls.insert((*type_index, *table_index));
            }
            _ => {}
        }
    }

    /// Whether the entries of a table are unused once calls are direct.
    pub(super) fn entries_are_unused(&self, table: u32) -> bool {
        !self.mutable.contains(&table) && !self.read.contains(&table) && !self.uses_function_values
    }

    /// The entries of a table that a call of this type can reach, in the order of the table. Empty
    /// if the table may change.
    pub(super) fn targets(&self, ty: u32, table: u32) -> Vec<Target> {
        if self.mutable.contains(&table) {
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

/// An entry of a table.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) index: u32,
    pub(super) function: u32,
}
