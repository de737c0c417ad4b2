//! Writes one module with the code, tables and data of all, under new indices.
//!
//! Must not know: how imports are traced (`link`), what a world is beyond which names are the host's and which are exported.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result, bail, ensure};
use wasm_encoder::reencode::{RoundtripReencoder, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, Elements, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, GlobalSection, ImportSection, Instruction, MemorySection, NameMap,
    NameSection, RefType, TableSection, TableType, TypeSection,
};
use wasmparser::{DataKind, Element, ElementItems, ElementKind, FuncType, TypeRef};

use super::Surface;
use super::image::Image;
use super::link::{Constant, Linked, Origin};
use super::parse::{Module, Space};
use super::renumber::{Global, Indices};
use super::{pins, plain};

/// An index that nothing uses: a table that only the plumbing fills.
pub(super) const NOWHERE: u32 = u32::MAX;
/// The export through which the guest gets the host's functions.
pub(super) const TABLE: &str = "$host";

/// The component's one module.
pub(super) struct Merged {
    pub(super) module: Vec<u8>,
    /// What the encoder is shown in its place: with imports in the place of a table, and without code.
    pub(super) outline: Vec<u8>,
    /// None where it calls nothing of the host.
    pub(super) plug: Option<Plug>,
    /// How many words the guest had pinned, or why none.
    pub(super) pinned: Result<usize>,
}

/// What fills the guest's table of the host's functions.
pub(super) struct Plug {
    /// A module without code that imports the table and, as `0`, `1` and so on, these functions.
    pub(super) module: Vec<u8>,
    /// Module and field by which the outline imports them.
    pub(super) functions: Vec<(String, String)>,
}

/// All core modules as one.
pub(super) fn merge(linked: &Linked, surface: &Surface) -> Result<Merged> {
    let plan = Plan::new(linked, surface)?;
    let mut out = Sections::default();
    plan.write_host(&mut out);
    plan.write_traps(&mut out);
    for &instance in &linked.instances {
        plan.write_instance(instance, &mut out)?;
    }
    let pinned = pins::pin(out.image.bytes());
    out.data_count += out.image.segments(&mut out.data)?;
    let exports = plan.exports()?;
    let outline = plan.outline(&out, &exports)?;
    Ok(Merged { module: plan.finish(out, &exports)?, outline, plug: plan.plug()?, pinned })
}

/// Every index of the result, decided before anything is written.
struct Plan<'l, 'a> {
    linked: &'l Linked<'a>,
    surface: &'l Surface,
    types: Vec<FuncType>,
    /// For each instance its type indices.
    type_maps: HashMap<usize, Vec<u32>>,
    /// Functions of the host: module, field, type.
    host: Vec<(String, String, u32)>,
    /// For each type of a stubbed function the index of one that traps.
    traps: BTreeMap<u32, u32>,
    /// For each instance the index of its first function.
    functions: HashMap<usize, u32>,
    /// Globals that are kept, in order.
    globals: Vec<(usize, u32)>,
    tables: Vec<(usize, u32)>,
    memory: wasmparser::MemoryType,
}

#[derive(Default)]
struct Sections {
    /// The type of each defined function.
    functions: Vec<u32>,
    code: CodeSection,
    elements: ElementSection,
    element_count: u32,
    /// What active segments write.
    image: Image,
    data: DataSection,
    data_count: u32,
    /// Whether code names a segment: then their count comes before the code.
    refers_to_data: bool,
    names: NameMap,
}

impl<'l, 'a> Plan<'l, 'a> {
    fn new(linked: &'l Linked<'a>, surface: &'l Surface) -> Result<Self> {
        let (mut memories, mut tables, mut globals) = (vec![], vec![], vec![]);
        for &instance in &linked.instances {
            let module = linked.module(instance)?;
            ensure!(!module.exports.contains_key(TABLE), "it is flattened already");
            memories.extend(module.memories.iter().copied());
            tables.extend((0..module.tables.len() as u32).map(|index| (instance, index)));
            for index in 0..module.globals.len() as u32 {
                let own = index + module.imported[Space::Global.index()].len() as u32;
                if linked.constant_global(instance, own)?.is_none() {
                    globals.push((instance, index));
                }
            }
        }
        ensure!(memories.len() == 1, "there are {} memories: only a component with one can be merged", memories.len());
        let mut plan = Self {
            linked,
            surface,
            types: vec![],
            type_maps: HashMap::new(),
            host: vec![],
            traps: BTreeMap::new(),
            functions: HashMap::new(),
            globals,
            tables,
            memory: memories[0],
        };
        plan.number_types()?;
        plan.number_functions()?;
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

    /// One for each function of the host first, then one trap for each type, then every module's own.
    fn number_functions(&mut self) -> Result<()> {
        let mut seen = HashSet::new();
        for &instance in self.linked.instances.iter().filter(|instance| !self.linked.is_fixup(**instance)) {
            let module = self.linked.module(instance)?;
            for index in 0..module.imported[Space::Func.index()].len() as u32 {
                let Origin::Canon(Some((from, field))) = self.linked.resolve(instance, Space::Func, index)? else {
                    continue;
                };
                let ty = self.import_type(instance, module, index)?;
                if !self.surface.is_import(&from) {
                    self.traps.insert(ty, NOWHERE);
                } else if seen.insert((from.clone(), field.clone())) {
                    self.host.push((from, field, ty));
                }
            }
        }
        let mut next = self.host.len() as u32;
        for index in self.traps.values_mut() {
            *index = next;
            next += 1;
        }
        for &instance in &self.linked.instances {
            self.functions.insert(instance, next);
            next += self.linked.module(instance)?.funcs.len() as u32;
        }
        Ok(())
    }

    /// The host's functions are called through a table of their own, after those of the guest.
    fn host_table(&self) -> u32 {
        self.tables.len() as u32
    }

    fn plug(&self) -> Result<Option<Plug>> {
        if self.host.is_empty() {
            return Ok(None);
        }
        let mut imports = ImportSection::new();
        imports.import("", TABLE, self.host_table_type());
        for (index, (_, _, ty)) in self.host.iter().enumerate() {
            imports.import("", &index.to_string(), EntityType::Function(*ty));
        }
        let functions: Vec<u32> = (0..self.host.len() as u32).collect();
        let mut elements = ElementSection::new();
        elements.active(None, &ConstExpr::i32_const(0), Elements::Functions(functions.into()));
        let mut module = wasm_encoder::Module::new();
        module.section(&self.type_section()?).section(&imports).section(&elements);
        let functions = self.host.iter().map(|(module, field, _)| (module.clone(), field.clone())).collect();
        Ok(Some(Plug { module: module.finish(), functions }))
    }

    fn host_table_type(&self) -> TableType {
        let size = self.host.len() as u64;
        TableType { element_type: RefType::FUNCREF, table64: false, minimum: size, maximum: Some(size), shared: false }
    }

    fn import_type(&self, instance: usize, module: &Module, index: u32) -> Result<u32> {
        match module.imports[module.imported[Space::Func.index()][index as usize]].2 {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => Ok(self.type_maps[&instance][ty as usize]),
            _ => bail!("a function import without a function's type"),
        }
    }

    /// The index of a function in the result; `ty` decides which trap stands for a stub.
    fn function(&self, origin: &Origin, ty: Option<u32>) -> u32 {
        match origin {
            Origin::Defined(instance, index) => self.functions[instance] + index,
            Origin::Canon(Some((from, field))) => {
                let host = self.host.iter().position(|own| own.0 == *from && own.1 == *field).map(|index| index as u32);
                host.or_else(|| self.traps.get(&ty?).copied()).unwrap_or(NOWHERE)
            }
            Origin::Canon(None) => NOWHERE,
        }
    }

    fn write_host(&self, out: &mut Sections) {
        for (index, (from, field, ty)) in self.host.iter().enumerate() {
            let mut body = Function::new([]);
            for parameter in 0..self.types[*ty as usize].params().len() as u32 {
                body.instructions().local_get(parameter);
            }
            body.instructions().i32_const(index as i32).return_call_indirect(self.host_table(), *ty).end();
            out.functions.push(*ty);
            out.code.function(&body);
            out.names.append(index as u32, &format!("{from}#{field}"));
        }
    }

    fn write_traps(&self, out: &mut Sections) {
        for (ty, index) in &self.traps {
            out.functions.push(*ty);
            out.code.function(&trap());
            out.names.append(*index, "a stub that traps");
        }
    }

    fn write_instance(&self, instance: usize, out: &mut Sections) -> Result<()> {
        let module = self.linked.module(instance)?;
        let mut indices = self.indices(instance, module, out)?;
        for ty in &module.funcs {
            out.functions.push(self.type_maps[&instance][*ty as usize]);
        }
        for body in &module.code {
            utils::parse_function_body(&mut indices, &mut out.code, body.clone()).map_err(plain)?;
        }
        let imported = module.imported[Space::Func.index()].len() as u32;
        for index in 0..module.funcs.len() as u32 {
            if let Some(name) = module.names.get(&(imported + index)) {
                out.names.append(self.functions[&instance] + index, name);
            }
        }
        for element in &module.elements {
            self.write_element(instance, element, &indices, out)?;
        }
        for data in &module.data {
            if let DataKind::Active { offset_expr, .. } = &data.kind {
                out.image.write(self.offset(instance, offset_expr)?, data.data)?;
            }
        }
        // Only what code refers to keeps a number: each costs every instance of the guest. One that was written finds what it would have found, no length.
        for index in &indices.data {
            let data = module.data.get(*index as usize).context("code refers to a data segment that is not there")?;
            out.data.passive(match data.kind {
                DataKind::Passive => data.data.iter().copied(),
                DataKind::Active { .. } => [].iter().copied(),
            });
            out.data_count += 1;
        }
        out.refers_to_data |= !indices.data.is_empty();
        Ok(())
    }

    /// How the code of an instance is renumbered.
    fn indices(&self, instance: usize, module: &Module, out: &Sections) -> Result<Indices> {
        let total = |space: Space, defined: usize| (module.imported[space.index()].len() + defined) as u32;
        let imported = module.imported[Space::Func.index()].len() as u32;
        let mut functions = vec![];
        for index in 0..total(Space::Func, module.funcs.len()) {
            let ty = if index < imported { Some(self.import_type(instance, module, index)?) } else { None };
            functions.push(self.function(&self.linked.resolve(instance, Space::Func, index)?, ty));
        }
        let mut globals = vec![];
        for index in 0..total(Space::Global, module.globals.len()) {
            globals.push(match self.linked.constant_global(instance, index)? {
                Some(value) => Global::Constant(value),
                None => match self.linked.resolve(instance, Space::Global, index)? {
                    Origin::Defined(owner, defined) => {
                        let position = self.globals.iter().position(|kept| *kept == (owner, defined));
                        Global::Index(position.context("a global that is not kept")? as u32)
                    }
                    Origin::Canon(_) => bail!("a global that the canonical ABI gives"),
                },
            });
        }
        let mut tables = vec![];
        for index in 0..total(Space::Table, module.tables.len()) {
            tables.push(match self.linked.resolve(instance, Space::Table, index)? {
                // The shim's own table is not part of the result.
                Origin::Defined(owner, defined) => self
                    .tables
                    .iter()
                    .position(|own| *own == (owner, defined))
                    .map_or(NOWHERE, |position| position as u32),
                Origin::Canon(_) => bail!("a table that the canonical ABI gives"),
            });
        }
        let types = self.type_maps[&instance].clone();
        Ok(Indices {
            types,
            functions,
            globals,
            tables,
            first_data: out.data_count,
            data: vec![],
            first_element: out.element_count,
        })
    }

    fn write_element(&self, instance: usize, element: &Element, indices: &Indices, out: &mut Sections) -> Result<()> {
        let ElementItems::Functions(functions) = element.items.clone() else {
            bail!("elements that are expressions cannot be merged")
        };
        let functions = functions
            .into_iter()
            .map(|function| Ok(indices.functions[function? as usize]))
            .collect::<Result<Vec<u32>>>()?;
        match &element.kind {
            ElementKind::Passive => out.elements.passive(Elements::Functions(functions.into())),
            ElementKind::Declared => out.elements.declared(Elements::Functions(functions.into())),
            ElementKind::Active { table_index, offset_expr } => {
                let table = indices.tables[table_index.unwrap_or(0) as usize];
                // Segments keep their numbers, so what fills the shim's table, or nothing, stays as a segment without effect.
                if table == NOWHERE || functions.is_empty() {
                    out.elements.declared(Elements::Functions(vec![].into()))
                } else {
                    let offset = ConstExpr::i32_const(self.offset(instance, offset_expr)?);
                    out.elements.active(Some(table), &offset, Elements::Functions(functions.into()))
                }
            }
        };
        out.element_count += 1;
        Ok(())
    }

    fn offset(&self, instance: usize, expression: &wasmparser::ConstExpr) -> Result<i32> {
        match self.linked.evaluate(instance, expression)? {
            Some(Constant::I32(offset)) => Ok(offset),
            _ => bail!("a segment's offset is not known when the component is built"),
        }
    }

    /// What the world lifts: each handler, its post-return and the allocator, under the names that the encoder looks for.
    fn exports(&self) -> Result<BTreeMap<String, u32>> {
        let mut exports = BTreeMap::new();
        let mut allocator = None;
        for lift in &self.linked.shell.lifts {
            let Some(name) = self.linked.item_name(lift.func).filter(|name| self.surface.is_export(name)) else {
                continue;
            };
            let index = |item: u32| -> Result<u32> { Ok(self.function(&self.linked.item(Space::Func, item)?, None)) };
            exports.insert(name.to_owned(), index(lift.func)?);
            if let Some(item) = lift.post_return {
                exports.insert(format!("cabi_post_{name}"), index(item)?);
            }
            if let Some(item) = lift.realloc {
                let own = index(item)?;
                ensure!(allocator.is_none_or(|other| other == own), "the exports use different allocators");
                allocator = Some(own);
            }
        }
        ensure!(!exports.is_empty(), "the component lifts nothing that the world exports");
        let allocator = match allocator {
            Some(index) => Some(index),
            None => self.allocator()?,
        };
        exports.extend(allocator.map(|index| ("cabi_realloc".to_owned(), index)));
        Ok(exports)
    }

    /// The allocator that imports use, where no export names one.
    fn allocator(&self) -> Result<Option<u32>> {
        for &instance in &self.linked.instances {
            if let Some((_, index)) = self.linked.module(instance)?.exports.get("cabi_realloc") {
                return Ok(Some(self.function(&self.linked.resolve(instance, Space::Func, *index)?, None)));
            }
        }
        Ok(None)
    }

    /// A module with the same face: what the world sees of it.
    fn outline(&self, out: &Sections, exported: &BTreeMap<String, u32>) -> Result<Vec<u8>> {
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        let mut faces = BTreeMap::new();
        for (name, index) in exported {
            faces.insert(name.clone(), self.host.len() as u32 + functions.len());
            functions.function(out.functions[*index as usize]);
            code.function(&trap());
        }
        let mut module = wasm_encoder::Module::new();
        module.section(&self.type_section()?).section(&self.import_section()).section(&functions);
        module.section(&self.memory_section()).section(&export_section(&faces)).section(&code);
        Ok(module.finish())
    }

    fn finish(&self, out: Sections, exported: &BTreeMap<String, u32>) -> Result<Vec<u8>> {
        let mut round = RoundtripReencoder;
        let mut functions = FunctionSection::new();
        for ty in &out.functions {
            functions.function(*ty);
        }
        let mut tables = TableSection::new();
        for (instance, index) in &self.tables {
            let ty = self.linked.module(*instance)?.tables[*index as usize].ty;
            tables.table(utils::table_type(&mut round, ty).map_err(plain)?);
        }
        let mut exports = export_section(exported);
        if !self.host.is_empty() {
            tables.table(self.host_table_type());
            exports.export(TABLE, ExportKind::Table, self.host_table());
        }
        let mut names = NameSection::new();
        names.functions(&out.names);
        let mut module = wasm_encoder::Module::new();
        module.section(&self.type_section()?).section(&functions).section(&tables);
        module.section(&self.memory_section()).section(&self.global_section()?);
        module.section(&exports).section(&out.elements);
        if out.refers_to_data {
            module.section(&DataCountSection { count: out.data_count });
        }
        module.section(&out.code).section(&out.data).section(&names);
        Ok(module.finish())
    }

    fn type_section(&self) -> Result<TypeSection> {
        let mut types = TypeSection::new();
        for ty in &self.types {
            types.ty().func_type(&utils::func_type(&mut RoundtripReencoder, ty.clone()).map_err(plain)?);
        }
        Ok(types)
    }

    /// The host's functions, as the outline has them.
    fn import_section(&self) -> ImportSection {
        let mut imports = ImportSection::new();
        for (from, field, ty) in &self.host {
            imports.import(from, field, EntityType::Function(*ty));
        }
        imports
    }

    fn memory_section(&self) -> MemorySection {
        let mut memories = MemorySection::new();
        memories.memory(utils::memory_type(&mut RoundtripReencoder, self.memory));
        memories
    }

    fn global_section(&self) -> Result<GlobalSection> {
        let mut section = GlobalSection::new();
        for (instance, index) in &self.globals {
            let global = &self.linked.module(*instance)?.globals[*index as usize];
            let initial = match self.linked.evaluate(*instance, &global.init_expr)? {
                Some(Constant::I32(value)) => ConstExpr::i32_const(value),
                Some(Constant::I64(value)) => ConstExpr::i64_const(value),
                // What is no number (a float, a null) does not depend on an index.
                None => utils::const_expr(&mut RoundtripReencoder, global.init_expr.clone()).map_err(plain)?,
            };
            section.global(utils::global_type(&mut RoundtripReencoder, global.ty).map_err(plain)?, &initial);
        }
        Ok(section)
    }
}

/// A body that only traps.
pub(super) fn trap() -> Function {
    let mut body = Function::new([]);
    body.instruction(&Instruction::Unreachable).instruction(&Instruction::End);
    body
}

fn export_section(exported: &BTreeMap<String, u32>) -> ExportSection {
    let mut exports = ExportSection::new();
    for (name, index) in exported {
        exports.export(name, ExportKind::Func, *index);
    }
    exports.export("memory", ExportKind::Memory, 0);
    exports
}
