//! Reads the core side of a component: its modules, how they are instantiated, and the items that
//! are aliased and lifted from them.
//!
//! This module reads structure only; `link` resolves it. This module does not know: the purpose of
//! a module.

use std::collections::HashMap;

use anyhow::{Result, bail};
use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentOuterAliasKind, Data, Element, Encoding, ExternalKind,
    FuncType, FunctionBody, Global, Instance, KnownCustom, MemoryType, Name, Parser, Payload, Table, TypeRef,
};

/// An index space of imports and exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Space {
    Func,
    Table,
    Memory,
    Global,
}

impl Space {
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    fn of(kind: ExternalKind) -> Result<Self> {
        Ok(match kind {
            ExternalKind::Func | ExternalKind::FuncExact => Self::Func,
            ExternalKind::Table => Self::Table,
            ExternalKind::Memory => Self::Memory,
            ExternalKind::Global => Self::Global,
            ExternalKind::Tag => bail!("exception tags cannot be merged"),
        })
    }
}

/// A core module.
#[derive(Default)]
pub(super) struct Module<'a> {
    pub(super) size: usize,
    pub(super) types: Vec<FuncType>,
    /// Module name, field name and type, in order.
    pub(super) imports: Vec<(&'a str, &'a str, TypeRef)>,
    /// For each space, the positions in `imports`.
    pub(super) imported: [Vec<usize>; 4],
    /// The type index of each defined function.
    pub(super) funcs: Vec<u32>,
    pub(super) tables: Vec<Table<'a>>,
    pub(super) memories: Vec<MemoryType>,
    pub(super) globals: Vec<Global<'a>>,
    pub(super) exports: HashMap<&'a str, (ExternalKind, u32)>,
    pub(super) elements: Vec<Element<'a>>,
    pub(super) data: Vec<Data<'a>>,
    pub(super) code: Vec<FunctionBody<'a>>,
    pub(super) start: Option<u32>,
    /// Function names, for backtraces.
    pub(super) names: HashMap<u32, &'a str>,
}

/// How a core instance is made.
pub(super) enum CoreInstance<'a> {
    /// From a module, with an instance for each module name that it imports.
    Module { module: usize, arguments: HashMap<&'a str, usize> },
    /// From items of the component.
    Exports(HashMap<&'a str, (ExternalKind, u32)>),
}

/// An item of a core index space of the component.
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    /// An export of a core instance.
    Alias(usize, &'a str),
    /// A function of the canonical ABI. The host or another component implements it.
    Canon,
}

/// A core function that the component lifts.
pub(super) struct Lift {
    pub(super) func: u32,
    pub(super) realloc: Option<u32>,
    pub(super) post_return: Option<u32>,
}

/// The core side of one component.
#[derive(Default)]
pub(super) struct ComponentCore<'a> {
    pub(super) modules: Vec<Module<'a>>,
    pub(super) instances: Vec<CoreInstance<'a>>,
    pub(super) items: [Vec<Item<'a>>; 4],
    pub(super) lifts: Vec<Lift>,
}

/// All components of a file, nested ones first.
pub(super) fn component_cores(bytes: &[u8]) -> Result<Vec<ComponentCore<'_>>> {
    // `None` stands for a core module: `module` reads its payloads.
    let mut open: Vec<Option<ComponentCore>> = vec![];
    let mut done = vec![];
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        match &payload {
            Payload::Version { encoding: Encoding::Module, .. } if open.is_empty() => {
                bail!("the file is a core module, not a component")
            }
            Payload::Version { .. } if open.is_empty() => open.push(Some(ComponentCore::default())),
            Payload::ModuleSection { unchecked_range, .. } => {
                if let Some(Some(core)) = open.last_mut() {
                    core.modules.push(module(&bytes[unchecked_range.start..unchecked_range.end])?);
                }
                open.push(None);
            }
            Payload::ComponentSection { .. } => open.push(Some(ComponentCore::default())),
            Payload::End(_) => done.extend(open.pop().flatten()),
            _ => {
                if let Some(Some(core)) = open.last_mut() {
                    read_component(core, payload)?;
                }
            }
        }
    }
    Ok(done)
}

fn read_component<'a>(core: &mut ComponentCore<'a>, payload: Payload<'a>) -> Result<()> {
    match payload {
        Payload::InstanceSection(section) => {
            for instance in section {
                core.instances.push(match instance? {
                    Instance::Instantiate { module_index, args } => CoreInstance::Module {
                        module: module_index as usize,
                        arguments: args.iter().map(|argument| (argument.name, argument.index as usize)).collect(),
                    },
                    Instance::FromExports(exports) => CoreInstance::Exports(
                        exports.iter().map(|export| (export.name, (export.kind, export.index))).collect(),
                    ),
                });
            }
        }
        Payload::ComponentAliasSection(section) => {
            for alias in section {
                match alias? {
                    ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                        core.items[Space::of(kind)?.index()].push(Item::Alias(instance_index as usize, name));
                    }
                    ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => {
                        bail!("a core module of an outer component cannot be merged")
                    }
                    _ => {}
                }
            }
        }
        Payload::ComponentCanonicalSection(section) => {
            for function in section {
                match function? {
                    CanonicalFunction::Lift { core_func_index, options, .. } => {
                        let mut lift = Lift { func: core_func_index, realloc: None, post_return: None };
                        for option in options.iter() {
                            match option {
                                CanonicalOption::Realloc(index) => lift.realloc = Some(*index),
                                CanonicalOption::PostReturn(index) => lift.post_return = Some(*index),
                                CanonicalOption::Async | CanonicalOption::Callback(_) => {
                                    bail!("async exports cannot be merged")
                                }
                                _ => {}
                            }
                        }
                        core.lifts.push(lift);
                    }
                    _ => core.items[Space::Func.index()].push(Item::Canon),
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Reads a core module.
pub(super) fn module(bytes: &[u8]) -> Result<Module<'_>> {
    let mut module = Module { size: bytes.len(), ..Module::default() };
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    module.types.push(ty?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let space = match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => Space::Func,
                        TypeRef::Table(_) => Space::Table,
                        TypeRef::Memory(_) => Space::Memory,
                        TypeRef::Global(_) => Space::Global,
                        TypeRef::Tag(_) => bail!("exception tags cannot be merged"),
                    };
                    module.imported[space.index()].push(module.imports.len());
                    module.imports.push((import.module, import.name, import.ty));
                }
            }
            Payload::FunctionSection(section) => module.funcs = section.into_iter().collect::<Result<_, _>>()?,
            Payload::TableSection(section) => module.tables = section.into_iter().collect::<Result<_, _>>()?,
            Payload::MemorySection(section) => module.memories = section.into_iter().collect::<Result<_, _>>()?,
            Payload::GlobalSection(section) => module.globals = section.into_iter().collect::<Result<_, _>>()?,
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    module.exports.insert(export.name, (export.kind, export.index));
                }
            }
            Payload::StartSection { func, .. } => module.start = Some(func),
            Payload::ElementSection(section) => module.elements = section.into_iter().collect::<Result<_, _>>()?,
            Payload::DataSection(section) => module.data = section.into_iter().collect::<Result<_, _>>()?,
            Payload::CodeSectionEntry(body) => module.code.push(body),
            Payload::TagSection(_) => bail!("exception tags cannot be merged"),
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    for name in names.into_iter().filter_map(Result::ok) {
                        if let Name::Function(map) = name {
                            module.names.extend(
                                map.into_iter().filter_map(Result::ok).map(|naming| (naming.index, naming.name)),
                            );
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(module)
}
