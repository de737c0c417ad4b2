//! Decides every index of the merged module before anything is written.
//!
//! This module does not know: how the result is encoded.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result, bail, ensure};
use wasmparser::{ConstExpr, FuncType, MemoryType, TypeRef};

use crate::optimize::host_table::{HOST_TABLE, HostFunction};
use crate::optimize::link::{Constant, Linked, Origin};
use crate::optimize::parse::{Module, Space};
use crate::optimize::renumber::{Global, Indices, UNUSED};
use crate::optimize::world::WorldNames;

/// The part of the data stack that calls use, in bytes.
///
/// CPython measures the depth of its recursion by this stack, and the code of the deepest
/// recursion, JSON, needs 27 times as much of the stack of Wasm code. The gateway has 16 MiB of
/// that one (host/runtime/src/engine.rs), so `RecursionError` comes before the end of the stack.
pub(super) const DATA_STACK_BYTES: i32 = 528 << 10;

/// An import that is neither defined nor part of the world.
pub(super) struct Stub {
    /// Its type index in the merged module.
    pub(super) ty: u32,
    /// Its function index in the merged module.
    pub(super) index: u32,
}

/// The indices of the merged module. Functions are numbered in this order: a forwarding function
/// for each host function, a function for each stubbed import, the functions of each module.
pub(super) struct Plan<'l, 'a> {
    pub(super) linked: &'l Linked<'a>,
    pub(super) types: Vec<FuncType>,
    /// For each core instance, the indices of its types in `types`.
    pub(super) type_maps: HashMap<usize, Vec<u32>>,
    pub(super) host: Vec<HostFunction>,
    /// The stubbed imports, by the module and field of the import.
    pub(super) stubs: BTreeMap<(String, String), Stub>,
    /// For each core instance, the index of its first function.
    pub(super) functions: HashMap<usize, u32>,
    /// The globals that are not constant, in order: core instance and index among its own.
    pub(super) globals: Vec<(usize, u32)>,
    /// The tables, in order: core instance and index among its own.
    pub(super) tables: Vec<(usize, u32)>,
    pub(super) memory: MemoryType,
    /// The global with the top of the data stack, and the top, if the stack is known.
    pub(super) data_stack: Option<((usize, u32), i32)>,
}

impl<'l, 'a> Plan<'l, 'a> {
    pub(super) fn new(linked: &'l Linked<'a>, world: &WorldNames) -> Result<Self> {
        let (mut memories, mut tables, mut globals) = (vec![], vec![], vec![]);
        for &instance in &linked.instances {
            let module = linked.module(instance)?;
            ensure!(!module.exports.contains_key(HOST_TABLE), "the component is optimized already");
            memories.extend(module.memories.iter().copied());
            tables.extend((0..module.tables.len() as u32).map(|index| (instance, index)));
            let imported = module.imported[Space::Global.index()].len() as u32;
            for index in 0..module.globals.len() as u32 {
                if linked.constant_global(instance, imported + index)?.is_none() {
                    globals.push((instance, index));
                }
            }
        }
        ensure!(memories.len() == 1, "the component has {} memories, and only one can be merged", memories.len());
        let mut plan = Self {
            linked,
            types: vec![],
            type_maps: HashMap::new(),
            host: vec![],
            stubs: BTreeMap::new(),
            functions: HashMap::new(),
            globals,
            tables,
            memory: memories[0],
            data_stack: linked.data_stack()?,
        };
        plan.number_types()?;
        plan.number_functions(world)?;
        Ok(plan)
    }

    fn number_types(&mut self) -> Result<()> {
        let mut known: HashMap<FuncType, u32> = HashMap::new();
        for &instance in &self.linked.instances {
            let mut map = vec![];
            for ty in &self.linked.module(instance)?.types {
                let next = self.types.len() as u32;
                let index = *known.entry(ty.clone()).or_insert(next);
                if index == next {
                    self.types.push(ty.clone());
                }
                map.push(index);
            }
            self.type_maps.insert(instance, map);
        }
        Ok(())
    }

    fn number_functions(&mut self, world: &WorldNames) -> Result<()> {
        let mut seen = HashSet::new();
        for &instance in self.linked.instances.iter().filter(|instance| !self.linked.is_fixup(**instance)) {
            let module = self.linked.module(instance)?;
            for index in 0..module.imported[Space::Func.index()].len() as u32 {
                let Origin::Canon(Some((from, field))) = self.linked.resolve(instance, Space::Func, index)? else {
                    continue;
                };
                let ty = self.import_type(instance, module, index)?;
                if !world.is_import(&from) {
                    self.stubs.insert((from, field), Stub { ty, index: UNUSED });
                } else if seen.insert((from.clone(), field.clone())) {
                    self.host.push(HostFunction { module: from, field, ty });
                }
            }
        }
        let mut next = self.host.len() as u32;
        for stub in self.stubs.values_mut() {
            stub.index = next;
            next += 1;
        }
        for &instance in &self.linked.instances {
            self.functions.insert(instance, next);
            next += self.linked.module(instance)?.funcs.len() as u32;
        }
        Ok(())
    }

    fn import_type(&self, instance: usize, module: &Module, index: u32) -> Result<u32> {
        match module.imports[module.imported[Space::Func.index()][index as usize]].2 {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => Ok(self.type_maps[&instance][ty as usize]),
            _ => bail!("a function import does not have the type of a function"),
        }
    }

    /// The index of the table of host functions. It follows the tables of the guest.
    pub(super) fn host_table(&self) -> u32 {
        self.tables.len() as u32
    }

    /// The index of a function in the result.
    fn function(&self, origin: &Origin) -> u32 {
        match origin {
            Origin::Defined(instance, index) => self.functions[instance] + index,
            Origin::Canon(Some((from, field))) => {
                let is_called = |function: &HostFunction| function.module == *from && function.field == *field;
                let host = self.host.iter().position(is_called).map(|index| index as u32);
                let stub = || self.stubs.get(&(from.clone(), field.clone())).map(|stub| stub.index);
                host.or_else(stub).unwrap_or(UNUSED)
            }
            Origin::Canon(None) => UNUSED,
        }
    }

    /// The new indices of a module's items. `first_data` and `first_element` are the indices of its
    /// first segments.
    pub(super) fn indices(&self, instance: usize, first_data: u32, first_element: u32) -> Result<Indices> {
        let module = self.linked.module(instance)?;
        let total = |space: Space, defined: usize| (module.imported[space.index()].len() + defined) as u32;
        let mut functions = vec![];
        for index in 0..total(Space::Func, module.funcs.len()) {
            functions.push(self.function(&self.linked.resolve(instance, Space::Func, index)?));
        }
        let mut globals = vec![];
        for index in 0..total(Space::Global, module.globals.len()) {
            globals.push(self.global(instance, index)?);
        }
        let mut tables = vec![];
        for index in 0..total(Space::Table, module.tables.len()) {
            tables.push(self.table(instance, index)?);
        }
        let types = self.type_maps[&instance].clone();
        Ok(Indices { types, functions, globals, tables, first_data, data: vec![], first_element })
    }

    fn global(&self, instance: usize, index: u32) -> Result<Global> {
        if let Some(value) = self.linked.constant_global(instance, index)? {
            return Ok(Global::Constant(value));
        }
        let Origin::Defined(owner, defined) = self.linked.resolve(instance, Space::Global, index)? else {
            bail!("the canonical ABI defines no globals")
        };
        let position = self.globals.iter().position(|kept| *kept == (owner, defined));
        Ok(Global::Index(position.context("a global that changes has no index")? as u32))
    }

    fn table(&self, instance: usize, index: u32) -> Result<u32> {
        let Origin::Defined(owner, defined) = self.linked.resolve(instance, Space::Table, index)? else {
            bail!("the canonical ABI defines no tables")
        };
        // The table of the shim is not part of the result.
        let position = self.tables.iter().position(|table| *table == (owner, defined));
        Ok(position.map_or(UNUSED, |position| position as u32))
    }

    /// The offset of an active segment.
    pub(super) fn offset(&self, instance: usize, expression: &ConstExpr) -> Result<i32> {
        match self.linked.evaluate(instance, expression)? {
            Some(Constant::I32(offset)) => Ok(offset),
            _ => bail!("the offset of a segment is not known at build time"),
        }
    }

    /// The functions that the world lifts, under the names that the encoder expects: each handler,
    /// its post-return function and the allocator.
    pub(super) fn exports(&self, world: &WorldNames) -> Result<BTreeMap<String, u32>> {
        let mut exports = BTreeMap::new();
        let mut allocator = None;
        for lift in &self.linked.core.lifts {
            let Some(name) = self.linked.item_name(lift.func).filter(|name| world.is_export(name)) else {
                continue;
            };
            let index = |item: u32| -> Result<u32> { Ok(self.function(&self.linked.item(Space::Func, item)?)) };
            exports.insert(name.to_owned(), index(lift.func)?);
            if let Some(item) = lift.post_return {
                exports.insert(format!("cabi_post_{name}"), index(item)?);
            }
            if let Some(item) = lift.realloc {
                let function = index(item)?;
                ensure!(allocator.is_none_or(|other| other == function), "the exports use different allocators");
                allocator = Some(function);
            }
        }
        ensure!(!exports.is_empty(), "the component lifts no export of the world");
        let allocator = match allocator {
            Some(index) => Some(index),
            None => self.import_allocator()?,
        };
        exports.extend(allocator.map(|index| ("cabi_realloc".to_owned(), index)));
        Ok(exports)
    }

    /// The allocator that imports use, for a component whose exports name none.
    fn import_allocator(&self) -> Result<Option<u32>> {
        for &instance in &self.linked.instances {
            if let Some((_, index)) = self.linked.module(instance)?.exports.get("cabi_realloc") {
                return Ok(Some(self.function(&self.linked.resolve(instance, Space::Func, *index)?)));
            }
        }
        Ok(None)
    }
}
