//! Encodes the merged module and its dummy.
//!
//! This module does not know: how the code was renumbered.

use std::collections::BTreeMap;

use anyhow::Result;
use wasm_encoder::reencode::{RoundtripReencoder, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, EntityType, ExportKind, ExportSection, FunctionSection, GlobalSection,
    ImportSection, MemorySection, NameSection, TableSection, TypeSection,
};

use super::plan::{DATA_STACK_BYTES, Plan};
use super::write::Sections;
use crate::optimize::encode::{reencode_error, trap_body};
use crate::optimize::host_table::{HOST_TABLE, table_type};
use crate::optimize::link::Constant;

/// The merged module. `exports` are the exported functions.
pub(super) fn encode(plan: &Plan, sections: Sections, exports: &BTreeMap<String, u32>) -> Result<Vec<u8>> {
    let mut functions = FunctionSection::new();
    for ty in &sections.functions {
        functions.function(*ty);
    }
    let mut tables = TableSection::new();
    for (instance, index) in &plan.tables {
        let ty = plan.linked.module(*instance)?.tables[*index as usize].ty;
        tables.table(utils::table_type(&mut RoundtripReencoder, ty).map_err(reencode_error)?);
    }
    let mut exports = export_section(exports);
    if !plan.host.is_empty() {
        tables.table(table_type(plan.host.len()));
        exports.export(HOST_TABLE, ExportKind::Table, plan.host_table());
    }
    let mut names = NameSection::new();
    names.functions(&sections.names);
    let mut module = wasm_encoder::Module::new();
    module.section(&type_section(plan)?).section(&functions).section(&tables);
    module.section(&memory_section(plan)).section(&global_section(plan)?);
    module.section(&exports).section(&sections.elements);
    if sections.names_data {
        module.section(&DataCountSection { count: sections.data_count });
    }
    module.section(&sections.code).section(&sections.data).section(&names);
    Ok(module.finish())
}

/// A module with the imports and exports of the world, whose functions trap.
pub(super) fn dummy(plan: &Plan, sections: &Sections, exports: &BTreeMap<String, u32>) -> Result<Vec<u8>> {
    let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
    let mut exported = BTreeMap::new();
    for (name, index) in exports {
        exported.insert(name.clone(), plan.host.len() as u32 + functions.len());
        functions.function(sections.functions[*index as usize]);
        code.function(&trap_body());
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&type_section(plan)?).section(&import_section(plan)).section(&functions);
    module.section(&memory_section(plan)).section(&export_section(&exported)).section(&code);
    Ok(module.finish())
}

/// The types of the merged module.
pub(super) fn type_section(plan: &Plan) -> Result<TypeSection> {
    let mut types = TypeSection::new();
    for ty in &plan.types {
        types.ty().func_type(&utils::func_type(&mut RoundtripReencoder, ty.clone()).map_err(reencode_error)?);
    }
    Ok(types)
}

/// The host's functions, which only the dummy imports.
fn import_section(plan: &Plan) -> ImportSection {
    let mut imports = ImportSection::new();
    for function in &plan.host {
        imports.import(&function.module, &function.field, EntityType::Function(function.ty));
    }
    imports
}

fn memory_section(plan: &Plan) -> MemorySection {
    let mut memories = MemorySection::new();
    memories.memory(utils::memory_type(&mut RoundtripReencoder, plan.memory));
    memories
}

fn global_section(plan: &Plan) -> Result<GlobalSection> {
    let mut section = GlobalSection::new();
    for (instance, index) in &plan.globals {
        let global = &plan.linked.module(*instance)?.globals[*index as usize];
        let initial = match plan.linked.evaluate(*instance, &global.init_expr)? {
            Some(Constant::I32(top)) if plan.data_stack == Some(((*instance, *index), top)) => {
                ConstExpr::i32_const(top.min(DATA_STACK_BYTES))
            }
            Some(Constant::I32(value)) => ConstExpr::i32_const(value),
            Some(Constant::I64(value)) => ConstExpr::i64_const(value),
            // Any other value, such as a float or a null, contains no index.
            None => utils::const_expr(&mut RoundtripReencoder, global.init_expr.clone()).map_err(reencode_error)?,
        };
        section.global(utils::global_type(&mut RoundtripReencoder, global.ty).map_err(reencode_error)?, &initial);
    }
    Ok(section)
}

fn export_section(exported: &BTreeMap<String, u32>) -> ExportSection {
    let mut exports = ExportSection::new();
    for (name, index) in exported {
        exports.export(name, ExportKind::Func, *index);
    }
    exports.export("memory", ExportKind::Memory, 0);
    exports
}
