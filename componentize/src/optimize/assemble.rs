//! Puts the merged module into the component that was encoded for its dummy, and removes the shim.
//!
//! A host function may need the guest's memory, so it exists after the guest; the guest imports it,
//! so it must exist before. The encoder solves this with a shim module, whose table a fixup module
//! fills later. Here the guest has that table itself. It is instantiated first and imports nothing.
//! The host functions are lowered with its memory, and a table initializer without code puts them
//! into its table. Everything else is copied unchanged.
//!
//! Gain: a call makes two core instances instead of three, and a host call is forwarded once.
//! Price: this module depends on the form of the encoder's output.
//! This module does not know: how the merged module was made.

use std::collections::HashMap;
use std::convert::Infallible;

use anyhow::{Context as _, Result, bail};
use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentSectionId, ComponentTypeSection,
    ExportKind, InstanceSection, ModuleArg, RawSection, ValType,
};
use wasmparser::{CanonicalFunction, ComponentAlias, ExternalKind, Instance, KnownCustom, Parser, Payload};

use super::encode::reencode_error;
use super::host_table::{HOST_TABLE, TableInitializer};

/// The core module of the guest in the result, and its core instance.
const GUEST: u32 = 0;
/// The core module of the table initializer in the result.
const INITIALIZER: u32 = 1;
/// The core instance with the arguments of the table initializer.
const INITIALIZER_ARGUMENTS: u32 = 1;

/// The component `encoded`, with `guest` instead of the one core module that defines a memory.
pub(super) fn assemble(encoded: &[u8], guest: &[u8], initializer: Option<&TableInitializer>) -> Result<Vec<u8>> {
    let mut assembly = Assembly { guest, initializer, ..Assembly::default() };
    let mut depth = 0_i32;
    for payload in Parser::new(0).parse_all(encoded) {
        let payload = payload?;
        let is_nested = depth > 0;
        match &payload {
            Payload::Version { .. } => continue,
            Payload::End(_) => {
                depth -= 1;
                continue;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            _ => {}
        }
        if !is_nested {
            assembly.read(payload, encoded)?;
        }
    }
    assembly.add_resource();
    Ok(assembly.out.finish())
}

/// A core instance of the encoded component.
enum CoreInstance<'a> {
    /// The guest, with the instance for each module name that it imports.
    Guest(HashMap<&'a str, u32>),
    /// The fixup, with the functions that it puts into the shim's table.
    Fixup(HashMap<&'a str, u32>),
    Shim,
    /// Functions of the component, by name.
    Functions(HashMap<&'a str, u32>),
}

/// A core function of the encoded component.
#[derive(Clone, Copy)]
enum Function<'a> {
    /// A function of the shim.
    Shim(&'a str),
    /// A function that stays, with its index in the result.
    Kept(u32),
}

#[derive(Default)]
struct Assembly<'a> {
    guest: &'a [u8],
    initializer: Option<&'a TableInitializer>,
    out: Component,
    /// The role of each core module of the encoded component, in order.
    modules: Vec<Role>,
    instances: Vec<CoreInstance<'a>>,
    functions: Vec<Function<'a>>,
    /// The number of core functions in the result.
    kept: u32,
    has_initializer: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Guest,
    Shim,
    Fixup,
}

impl<'a> Assembly<'a> {
    fn read(&mut self, payload: Payload<'a>, encoded: &'a [u8]) -> Result<()> {
        let Some((id, range)) = payload.as_section() else { return Ok(()) };
        let section = RawSection { id, data: &encoded[range.clone()] };
        match payload {
            Payload::ModuleSection { .. } => self.module(&encoded[range])?,
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.instance(instance?)?;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(alias?)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    self.canonical(function?)?;
                }
            }
            // The section names items by index, and the indices change.
            Payload::CustomSection(custom) if matches!(custom.as_known(), KnownCustom::ComponentName(_)) => {}
            _ => {
                self.out.section(&section);
            }
        }
        Ok(())
    }

    /// Adds an unused resource type.
    ///
    /// Gain: the compile cache finds more functions. The trampolines of host functions are the last
    /// that wasmtime 48 compiles of a component, and they leave exception-table entries in the
    /// compiler's workspace (see `export_trampolines`). With a resource, the code that drops it
    /// follows and leaves none.
    /// Price: one small function is compiled. The type is the last item, so no index changes.
    fn add_resource(&mut self) {
        let mut types = ComponentTypeSection::new();
        types.resource(ValType::I32, None);
        self.out.section(&types);
    }

    /// Replaces the dummy by the guest, which is instantiated first, and adds the table
    /// initializer.
    fn module(&mut self, module: &[u8]) -> Result<()> {
        let role = role(module)?;
        self.modules.push(role);
        if role != Role::Guest {
            return Ok(());
        }
        let id = ComponentSectionId::CoreModule.into();
        self.out.section(&RawSection { id, data: self.guest });
        if let Some(initializer) = self.initializer {
            self.out.section(&RawSection { id, data: &initializer.module });
        }
        let mut instances = InstanceSection::new();
        instances.instantiate(GUEST, [] as [(&str, ModuleArg); 0]);
        self.out.section(&instances);
        Ok(())
    }

    fn instance(&mut self, instance: Instance<'a>) -> Result<()> {
        let instance = match instance {
            Instance::FromExports(exports) => {
                let functions = exports.iter().filter(|export| export.kind == ExternalKind::Func);
                CoreInstance::Functions(functions.map(|export| (export.name, export.index)).collect())
            }
            Instance::Instantiate { module_index, args } => {
                match self.modules.get(module_index as usize).context("a core module index is out of range")? {
                    Role::Shim => CoreInstance::Shim,
                    Role::Guest => {
                        CoreInstance::Guest(args.iter().map(|argument| (argument.name, argument.index)).collect())
                    }
                    Role::Fixup => {
                        let argument = args.first().and_then(|argument| self.instances.get(argument.index as usize));
                        let Some(CoreInstance::Functions(functions)) = argument else {
                            bail!("the fixup has no functions as its argument")
                        };
                        CoreInstance::Fixup(functions.clone())
                    }
                }
            }
        };
        self.instances.push(instance);
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias<'a>) -> Result<()> {
        let alias = match alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                match self.instances.get(instance_index as usize) {
                    Some(CoreInstance::Shim) => {
                        if kind == ExternalKind::Func {
                            self.functions.push(Function::Shim(name));
                        }
                        return Ok(());
                    }
                    Some(CoreInstance::Guest(_)) => {
                        if kind == ExternalKind::Func {
                            self.keep();
                        }
                        Alias::CoreInstanceExport { instance: GUEST, kind: kind.into(), name }
                    }
                    _ => bail!("the alias {name} is of a core instance that is neither the guest nor the shim"),
                }
            }
            other => self.component_alias(other).map_err(reencode_error)?,
        };
        self.out.section(ComponentAliasSection::new().alias(alias));
        Ok(())
    }

    fn canonical(&mut self, function: CanonicalFunction) -> Result<()> {
        if matches!(function, CanonicalFunction::Lift { .. }) {
            self.instantiate_initializer()?;
        } else {
            self.keep();
        }
        let mut section = CanonicalFunctionSection::new();
        self.parse_component_canonical(&mut section, function).map_err(reencode_error)?;
        self.out.section(&section);
        Ok(())
    }

    /// Counts a core function that stays in the result.
    fn keep(&mut self) {
        self.functions.push(Function::Kept(self.kept));
        self.kept += 1;
    }

    /// Instantiates the table initializer. This runs before the first lift: all host functions are
    /// lowered by then, and nothing can be called yet.
    fn instantiate_initializer(&mut self) -> Result<()> {
        let Some(initializer) = self.initializer.filter(|_| !self.has_initializer) else { return Ok(()) };
        self.has_initializer = true;
        let table = Alias::CoreInstanceExport { instance: GUEST, kind: ExportKind::Table, name: HOST_TABLE };
        self.out.section(ComponentAliasSection::new().alias(table));
        let mut exports = vec![(HOST_TABLE.to_owned(), ExportKind::Table, 0)];
        for (index, (module, field)) in initializer.functions.iter().enumerate() {
            let function = self
                .host_function(module, field)
                .with_context(|| format!("the host function {module}#{field} is not lowered"))?;
            exports.push((index.to_string(), ExportKind::Func, function));
        }
        let mut instances = InstanceSection::new();
        instances.export_items(exports.iter().map(|(name, kind, index)| (name.as_str(), *kind, *index)));
        instances.instantiate(INITIALIZER, [("", ModuleArg::Instance(INITIALIZER_ARGUMENTS))]);
        self.out.section(&instances);
        Ok(())
    }

    /// The function of the result that the dummy imports by these names.
    fn host_function(&self, module: &str, field: &str) -> Option<u32> {
        let arguments = self.instances.iter().find_map(|instance| match instance {
            CoreInstance::Guest(arguments) => Some(arguments),
            _ => None,
        })?;
        let CoreInstance::Functions(functions) = &self.instances[*arguments.get(module)? as usize] else { return None };
        match self.functions.get(*functions.get(field)? as usize)? {
            Function::Kept(index) => Some(*index),
            Function::Shim(name) => {
                let filled = self.instances.iter().find_map(|instance| match instance {
                    CoreInstance::Fixup(functions) => functions.get(name),
                    _ => None,
                })?;
                match self.functions.get(*filled as usize)? {
                    Function::Kept(index) => Some(*index),
                    Function::Shim(_) => None,
                }
            }
        }
    }
}

/// The role for which the encoder made a module.
fn role(module: &[u8]) -> Result<Role> {
    let mut role = Role::Fixup;
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::MemorySection(_) => return Ok(Role::Guest),
            Payload::TableSection(_) => role = Role::Shim,
            _ => {}
        }
    }
    Ok(role)
}

impl Reencode for Assembly<'_> {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, Error<Infallible>> {
        match self.functions.get(index as usize) {
            Some(Function::Kept(index)) => Ok(*index),
            // No remaining item names a function of the shim. The validator checks this.
            Some(Function::Shim(_)) | None => Ok(u32::MAX),
        }
    }
}

impl ReencodeComponent for Assembly<'_> {}
