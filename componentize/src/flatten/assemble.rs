//! Puts the merged module into the component that was encoded for its outline, and takes the plumbing out.
//!
//! A function of the host may need the guest's memory, which is there after the guest, which needs its functions before. The encoder solves that with a module of stand-ins (the shim), whose table another module fills (the
//! fix-up): three instances for each call of a filter, and every function handed on twice. Here the guest has that table itself: it is instantiated first and needs nothing, the host's functions are
//! lowered with its memory, and the plug, a module without code, puts them into its table. All else is copied as it is. Must not know: how the modules were made.

use std::collections::HashMap;
use std::convert::Infallible;

use anyhow::{Context as _, Result, bail};
use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentSectionId, ComponentTypeSection,
    ExportKind, InstanceSection, ModuleArg, RawSection, ValType,
};
use wasmparser::{CanonicalFunction, ComponentAlias, ExternalKind, Instance, KnownCustom, Parser, Payload};

use super::merge::{Plug, TABLE};
use super::plain;

/// Instances and modules of the result.
const GUEST: u32 = 0;
const PLUG: u32 = 1;
const PLUGGED: u32 = 1;

/// The component with `guest` in the place of the one core module that has a memory of its own.
pub(super) fn assemble(outlined: &[u8], guest: &[u8], plug: Option<&Plug>) -> Result<Vec<u8>> {
    let mut assembly = Assembly { guest, plug, ..Assembly::default() };
    let mut depth = 0_i32;
    for payload in Parser::new(0).parse_all(outlined) {
        let payload = payload?;
        let is_inside = depth > 0;
        match &payload {
            Payload::Version { .. } => continue,
            Payload::End(_) => {
                depth -= 1;
                continue;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            _ => {}
        }
        if !is_inside {
            assembly.read(payload, outlined)?;
        }
    }
    assembly.end();
    Ok(assembly.out.finish())
}

/// A core instance of the outlined component.
enum Known<'a> {
    /// Where the host's functions come from, by the name of the module from which the guest imports.
    Guest(HashMap<&'a str, u32>),
    /// What the fix-up puts into the shim's table.
    Fixup(HashMap<&'a str, u32>),
    Shim,
    /// Functions by name.
    Bag(HashMap<&'a str, u32>),
}

/// A core function of the outlined component.
#[derive(Clone, Copy)]
enum Function<'a> {
    /// A stand-in of the shim.
    StandIn(&'a str),
    /// The same in the result.
    Kept(u32),
}

#[derive(Default)]
struct Assembly<'a> {
    guest: &'a [u8],
    plug: Option<&'a Plug>,
    out: Component,
    /// What the outlined component's modules are for, in order.
    modules: Vec<Role>,
    instances: Vec<Known<'a>>,
    functions: Vec<Function<'a>>,
    /// Core functions of the result.
    kept: u32,
    is_plugged: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Guest,
    Shim,
    Fixup,
}

impl<'a> Assembly<'a> {
    fn read(&mut self, payload: Payload<'a>, outlined: &'a [u8]) -> Result<()> {
        let Some((id, range)) = payload.as_section() else { return Ok(()) };
        let section = RawSection { id, data: &outlined[range.clone()] };
        match payload {
            Payload::ModuleSection { .. } => self.module(&outlined[range])?,
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
            // Names go by numbers, which are others now.
            Payload::CustomSection(custom) if matches!(custom.as_known(), KnownCustom::ComponentName(_)) => {}
            _ => {
                self.out.section(&section);
            }
        }
        Ok(())
    }

    /// A resource that nobody has. The last that wasmtime 48 compiles of a component are the ways in to the host's functions, which leave the trace that `doors` is about; where there is a resource, code for
    /// its end follows and leaves none. Behind all else, so that no number changes.
    fn end(&mut self) {
        let mut types = ComponentTypeSection::new();
        types.resource(ValType::I32, None);
        self.out.section(&types);
    }

    /// The guest takes the outline's place, is instantiated at once, and the plug comes beside it.
    fn module(&mut self, module: &[u8]) -> Result<()> {
        let role = role(module)?;
        self.modules.push(role);
        if role != Role::Guest {
            return Ok(());
        }
        let id = ComponentSectionId::CoreModule.into();
        self.out.section(&RawSection { id, data: self.guest });
        if let Some(plug) = self.plug {
            self.out.section(&RawSection { id, data: &plug.module });
        }
        let mut instances = InstanceSection::new();
        instances.instantiate(GUEST, [] as [(&str, ModuleArg); 0]);
        self.out.section(&instances);
        Ok(())
    }

    fn instance(&mut self, instance: Instance<'a>) -> Result<()> {
        let known = match instance {
            Instance::FromExports(exports) => {
                let functions = exports.iter().filter(|export| export.kind == ExternalKind::Func);
                Known::Bag(functions.map(|export| (export.name, export.index)).collect())
            }
            Instance::Instantiate { module_index, args } => {
                match self.modules.get(module_index as usize).context("a module that is not there")? {
                    Role::Shim => Known::Shim,
                    Role::Guest => Known::Guest(args.iter().map(|argument| (argument.name, argument.index)).collect()),
                    Role::Fixup => {
                        let bag = args.first().and_then(|argument| self.instances.get(argument.index as usize));
                        let Some(Known::Bag(functions)) = bag else { bail!("the fix-up is given nothing") };
                        Known::Fixup(functions.clone())
                    }
                }
            }
        };
        self.instances.push(known);
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias<'a>) -> Result<()> {
        let alias = match alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                match self.instances.get(instance_index as usize) {
                    Some(Known::Shim) => {
                        if kind == ExternalKind::Func {
                            self.functions.push(Function::StandIn(name));
                        }
                        return Ok(());
                    }
                    Some(Known::Guest(_)) => {
                        if kind == ExternalKind::Func {
                            self.keep();
                        }
                        Alias::CoreInstanceExport { instance: GUEST, kind: kind.into(), name }
                    }
                    _ => bail!("{name} comes from a core instance that is not known"),
                }
            }
            other => self.component_alias(other).map_err(plain)?,
        };
        self.out.section(ComponentAliasSection::new().alias(alias));
        Ok(())
    }

    fn canonical(&mut self, function: CanonicalFunction) -> Result<()> {
        if matches!(function, CanonicalFunction::Lift { .. }) {
            self.plug_in()?;
        } else {
            self.keep();
        }
        let mut section = CanonicalFunctionSection::new();
        self.parse_component_canonical(&mut section, function).map_err(plain)?;
        self.out.section(&section);
        Ok(())
    }

    /// The next core function is one of the result too.
    fn keep(&mut self) {
        self.functions.push(Function::Kept(self.kept));
        self.kept += 1;
    }

    /// Before the first thing that can be called: all functions of the host are lowered by then.
    fn plug_in(&mut self) -> Result<()> {
        let Some(plug) = self.plug.filter(|_| !self.is_plugged) else { return Ok(()) };
        self.is_plugged = true;
        let table = Alias::CoreInstanceExport { instance: GUEST, kind: ExportKind::Table, name: TABLE };
        self.out.section(ComponentAliasSection::new().alias(table));
        let mut exports = vec![(TABLE.to_owned(), ExportKind::Table, 0)];
        for (index, (module, field)) in plug.functions.iter().enumerate() {
            let function = self.host(module, field).with_context(|| format!("nothing gives {module} {field}"))?;
            exports.push((index.to_string(), ExportKind::Func, function));
        }
        let mut instances = InstanceSection::new();
        instances.export_items(exports.iter().map(|(name, kind, index)| (name.as_str(), *kind, *index)));
        instances.instantiate(PLUG, [("", ModuleArg::Instance(PLUGGED))]);
        self.out.section(&instances);
        Ok(())
    }

    /// The function of the result that the outline would have imported under these names.
    fn host(&self, module: &str, field: &str) -> Option<u32> {
        let arguments = self.instances.iter().find_map(|known| match known {
            Known::Guest(arguments) => Some(arguments),
            _ => None,
        })?;
        let Known::Bag(functions) = &self.instances[*arguments.get(module)? as usize] else { return None };
        match self.functions.get(*functions.get(field)? as usize)? {
            Function::Kept(index) => Some(*index),
            Function::StandIn(name) => {
                let filled = self.instances.iter().find_map(|known| match known {
                    Known::Fixup(functions) => functions.get(name),
                    _ => None,
                })?;
                match self.functions.get(*filled as usize)? {
                    Function::Kept(index) => Some(*index),
                    Function::StandIn(_) => None,
                }
            }
        }
    }
}

/// What the encoder made a module for.
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
            // The validator would see it.
            Some(Function::StandIn(_)) | None => Ok(u32::MAX),
        }
    }
}

impl ReencodeComponent for Assembly<'_> {}
