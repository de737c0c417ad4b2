//! Copies the functions, tables and data of every module into the sections of the merged module.
//!
//! This module does not know: how indices are chosen (`plan`).

use anyhow::{Context as _, Result, bail};
use wasm_encoder::reencode::utils;
use wasm_encoder::{CodeSection, ConstExpr, DataSection, ElementSection, Elements, NameMap};
use wasmparser::{DataKind, Element, ElementItems, ElementKind};

use super::plan::Plan;
use crate::optimize::encode::{reencode_error, trap_body};
use crate::optimize::host_table;
use crate::optimize::memory_image::MemoryImage;
use crate::optimize::parse::{Module, Space};
use crate::optimize::renumber::{Indices, UNUSED};
use crate::optimize::wasi_stubs;

/// The content of the merged module that comes from its parts.
#[derive(Default)]
pub(super) struct Sections {
    /// The type of each function.
    pub(super) functions: Vec<u32>,
    pub(super) code: CodeSection,
    pub(super) elements: ElementSection,
    element_count: u32,
    /// The content of active data segments.
    pub(super) image: MemoryImage,
    /// Data segments that code names.
    pub(super) data: DataSection,
    pub(super) data_count: u32,
    /// Whether code names a data segment. The module then needs a data count section.
    pub(super) names_data: bool,
    pub(super) names: NameMap,
}

impl Sections {
    /// Writes all functions in the order of the plan, and the segments of every module.
    pub(super) fn write(&mut self, plan: &Plan) -> Result<()> {
        for (index, function) in plan.host.iter().enumerate() {
            let parameters = plan.types[function.ty as usize].params().len() as u32;
            let body = host_table::call_body(index as u32, parameters, function.ty, plan.host_table());
            self.functions.push(function.ty);
            self.code.function(&body);
            self.names.append(index as u32, &format!("{}#{}", function.module, function.field));
        }
        let mut services = wasi_stubs::Services::default();
        for (index, function) in plan.host.iter().enumerate() {
            services.add(&function.module, &function.field, index as u32);
        }
        for ((module, field), stub) in &plan.stubs {
            let parameters = plan.types[stub.ty as usize].params().len() as u32;
            let body = wasi_stubs::body(module, field, parameters, &services);
            self.functions.push(stub.ty);
            self.code.function(&body.unwrap_or_else(trap_body));
            self.names.append(stub.index, &format!("{module}#{field}"));
        }
        for &instance in &plan.linked.instances {
            self.write_instance(plan, instance)?;
        }
        // The stack is empty in a snapshot, so its bytes are rests of the build.
        if let Some((_, top)) = plan.data_stack {
            let bytes = self.image.bytes();
            let end = bytes.len().min(top.cast_unsigned() as usize);
            bytes[..end].fill(0);
        }
        Ok(())
    }

    fn write_instance(&mut self, plan: &Plan, instance: usize) -> Result<()> {
        let module = plan.linked.module(instance)?;
        let mut indices = plan.indices(instance, self.data_count, self.element_count)?;
        for ty in &module.funcs {
            self.functions.push(plan.type_maps[&instance][*ty as usize]);
        }
        for body in &module.code {
            utils::parse_function_body(&mut indices, &mut self.code, body.clone()).map_err(reencode_error)?;
        }
        let imported = module.imported[Space::Func.index()].len() as u32;
        for index in 0..module.funcs.len() as u32 {
            if let Some(name) = module.names.get(&(imported + index)) {
                self.names.append(plan.functions[&instance] + index, name);
            }
        }
        for element in &module.elements {
            self.write_element(plan, instance, element, &indices)?;
        }
        for data in &module.data {
            if let DataKind::Active { offset_expr, .. } = &data.kind {
                self.image.write(plan.offset(instance, offset_expr)?, data.data)?;
            }
        }
        self.write_named_data(module, &indices)
    }

    /// Writes the data segments that code names, because each segment costs every instance of the
    /// guest.
    ///
    /// An active segment is empty after instantiation, so it becomes an empty passive one.
    fn write_named_data(&mut self, module: &Module, indices: &Indices) -> Result<()> {
        for index in &indices.data {
            let data = module.data.get(*index as usize).context("code names a data segment that does not exist")?;
            self.data.passive(match data.kind {
                DataKind::Passive => data.data.iter().copied(),
                DataKind::Active { .. } => [].iter().copied(),
            });
            self.data_count += 1;
        }
        self.names_data |= !indices.data.is_empty();
        Ok(())
    }

    fn write_element(&mut self, plan: &Plan, instance: usize, element: &Element, indices: &Indices) -> Result<()> {
        let ElementItems::Functions(functions) = element.items.clone() else {
            bail!("an element segment has expressions, which cannot be merged")
        };
        let functions = functions
            .into_iter()
            .map(|function| Ok(indices.functions[function? as usize]))
            .collect::<Result<Vec<u32>>>()?;
        match &element.kind {
            ElementKind::Passive => self.elements.passive(Elements::Functions(functions.into())),
            ElementKind::Declared => self.elements.declared(Elements::Functions(functions.into())),
            ElementKind::Active { table_index, offset_expr } => {
                let table = indices.tables[table_index.unwrap_or(0) as usize];
                // A segment for the shim's table, or an empty one, becomes an empty segment, so
                // that the indices of the others stay.
                if table == UNUSED || functions.is_empty() {
                    self.elements.declared(Elements::Functions(vec![].into()))
                } else {
                    let offset = ConstExpr::i32_const(plan.offset(instance, offset_expr)?);
                    self.elements.active(Some(table), &offset, Elements::Functions(functions.into()))
                }
            }
        };
        self.element_count += 1;
        Ok(())
    }
}
