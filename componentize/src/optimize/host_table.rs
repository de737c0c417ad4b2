//! The table through which the guest calls the functions of the host.
//!
//! Gain: the guest imports nothing, whichever host functions it calls. The position of globals and
//! tables in an instance depends on the number of imports, and compiled code depends on that
//! position. So filters of one language share their compiled code.
//! Price: a host call is an indirect call. This module does not know: how the guest is merged.

use wasm_encoder::{
    ConstExpr, ElementSection, Elements, EntityType, Function, ImportSection, RefType, TableType, TypeSection,
};

use super::encode::load_parameters;

/// The name under which the guest exports the table.
pub(super) const HOST_TABLE: &str = "$host";

/// A function of the host that the guest calls.
pub(super) struct HostFunction {
    /// The module and field by which a core module imports it.
    pub(super) module: String,
    pub(super) field: String,
    /// Its type index in the merged module.
    pub(super) ty: u32,
}

/// A module without code whose instantiation fills the table.
pub(super) struct TableInitializer {
    /// It imports the table, and the functions as `0`, `1` and so on.
    pub(super) module: Vec<u8>,
    /// The module and field of each function, in the order of the table.
    pub(super) functions: Vec<(String, String)>,
}

impl TableInitializer {
    /// The initializer for these functions, or `None` if there are none. `types` are those of the
    /// merged module.
    pub(super) fn new(host: &[HostFunction], types: &TypeSection) -> Option<Self> {
        if host.is_empty() {
            return None;
        }
        let mut imports = ImportSection::new();
        imports.import("", HOST_TABLE, table_type(host.len()));
        for (index, function) in host.iter().enumerate() {
            imports.import("", &index.to_string(), EntityType::Function(function.ty));
        }
        let indices: Vec<u32> = (0..host.len() as u32).collect();
        let mut elements = ElementSection::new();
        elements.active(None, &ConstExpr::i32_const(0), Elements::Functions(indices.into()));
        let mut module = wasm_encoder::Module::new();
        module.section(types).section(&imports).section(&elements);
        let functions = host.iter().map(|function| (function.module.clone(), function.field.clone())).collect();
        Some(Self { module: module.finish(), functions })
    }
}

/// The type of the table for this number of functions.
pub(super) fn table_type(functions: usize) -> TableType {
    let size = functions as u64;
    TableType { element_type: RefType::FUNCREF, table64: false, minimum: size, maximum: Some(size), shared: false }
}

/// The body of a guest function that calls the host function at `index` of the table.
pub(super) fn call_body(index: u32, parameters: u32, ty: u32, table: u32) -> Function {
    let mut body = Function::new([]);
    load_parameters(&mut body, parameters);
    body.instructions().i32_const(index.cast_signed()).return_call_indirect(table, ty).end();
    body
}
