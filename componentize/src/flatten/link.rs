//! Who defines what: traces an index of a core module through imports, instances and aliases to where it is defined.
//!
//! Two modules of every encoded component are not code but plumbing: the shim, whose functions call through a table, and the fix-up, whose element segment fills that table
//! with the functions of the host. A call to the shim is a call to what the fix-up puts there. Must not know: how modules are merged.

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail, ensure};
use wasmparser::{ConstExpr, ElementItems, ElementKind, ExternalKind, Operator};

use super::parse::{CoreInstance, Item, Module, Shell, Space};

/// The table through which shim and fix-up meet.
const SHIM_TABLE: &str = "$imports";

/// Where an item comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A core instance, and the index among what its module defines itself.
    Defined(usize, u32),
    /// The canonical ABI, under the names by which a core module imports it (none for a direct item of the component).
    Canon(Option<(String, String)>),
}

/// A constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constant {
    I32(i32),
    I64(i64),
}

/// A component's core side with its plumbing found.
pub(super) struct Linked<'a> {
    pub(super) shell: Shell<'a>,
    /// Core instances made of modules, without the shim; in order.
    pub(super) instances: Vec<usize>,
    shim: Option<usize>,
    fixup: Option<usize>,
    /// Defined globals that some code writes.
    written: HashSet<(usize, u32)>,
}

impl<'a> Linked<'a> {
    pub(super) fn new(shell: Shell<'a>) -> Result<Self> {
        let mut linked = Self { shell, instances: vec![], shim: None, fixup: None, written: HashSet::new() };
        let mut seen = HashSet::new();
        for index in 0..linked.shell.instances.len() {
            let CoreInstance::Module { module, .. } = &linked.shell.instances[index] else { continue };
            ensure!(seen.insert(*module), "a core module is instantiated twice");
            let module = &linked.shell.modules[*module];
            let is_shim = module.exports.contains_key(SHIM_TABLE) && module.tables.len() == 1;
            if module.imports.iter().any(|import| import.1 == SHIM_TABLE) {
                linked.fixup = Some(index);
            }
            if is_shim {
                linked.shim = Some(index);
            } else {
                linked.instances.push(index);
            }
        }
        linked.written = linked.find_written()?;
        Ok(linked)
    }

    /// The module of a core instance that has one.
    pub(super) fn module(&self, instance: usize) -> Result<&Module<'a>> {
        match &self.shell.instances[instance] {
            CoreInstance::Module { module, .. } => Ok(&self.shell.modules[*module]),
            CoreInstance::Exports(_) => bail!("core instance {instance} is not made of a module"),
        }
    }

    /// The functions that run when the component is instantiated.
    pub(super) fn starts(&self) -> Result<Vec<Origin>> {
        let mut starts = vec![];
        for (instance, own) in self.shell.instances.iter().enumerate() {
            let CoreInstance::Module { module, .. } = own else { continue };
            if let Some(index) = self.shell.modules[*module].start {
                starts.push(self.resolve(instance, Space::Func, index)?);
            }
        }
        Ok(starts)
    }

    /// Whether a function does nothing but this: `unreachable` (it traps at once) or `end` (it returns at once).
    pub(super) fn begins_with(&self, function: &Origin, expected: &Operator) -> Result<bool> {
        let Origin::Defined(instance, index) = function else { return Ok(false) };
        let body = self.module(*instance)?.code.get(*index as usize).context("a function without a body")?;
        Ok(body.get_operators_reader()?.read()? == *expected)
    }

    /// Whether the instance is the fix-up, whose code is none.
    pub(super) fn is_fixup(&self, instance: usize) -> bool {
        self.fixup == Some(instance)
    }

    /// Where an index of a module's space comes from.
    pub(super) fn resolve(&self, instance: usize, space: Space, index: u32) -> Result<Origin> {
        let module = self.module(instance)?;
        let imported = &module.imported[space.index()];
        let Some(&import) = imported.get(index as usize) else {
            return Ok(Origin::Defined(instance, index - imported.len() as u32));
        };
        let (from, field, _) = module.imports[import];
        let CoreInstance::Module { arguments, .. } = &self.shell.instances[instance] else { bail!("no arguments") };
        let argument = *arguments.get(from).with_context(|| format!("nothing is given for the import {from}"))?;
        Ok(match self.export(argument, field, space)? {
            Origin::Canon(None) => Origin::Canon(Some((from.to_owned(), field.to_owned()))),
            origin => origin,
        })
    }

    /// Where an item of the component's own core spaces comes from.
    pub(super) fn item(&self, space: Space, index: u32) -> Result<Origin> {
        match self.shell.items[space.index()].get(index as usize).context("an item that is not there")? {
            Item::Canon => Ok(Origin::Canon(None)),
            Item::Alias(instance, name) => self.export(*instance, name, space),
        }
    }

    /// The name by which an item of the component's functions was exported.
    pub(super) fn item_name(&self, index: u32) -> Option<&'a str> {
        match self.shell.items[Space::Func.index()].get(index as usize)? {
            Item::Alias(_, name) => Some(name),
            Item::Canon => None,
        }
    }

    fn export(&self, instance: usize, name: &str, space: Space) -> Result<Origin> {
        match &self.shell.instances[instance] {
            CoreInstance::Exports(exports) => {
                let (_, index) = exports.get(name).with_context(|| format!("no export {name}"))?;
                self.item(space, *index)
            }
            CoreInstance::Module { module, .. } => {
                if Some(instance) == self.shim && space == Space::Func {
                    return self.behind_shim(name);
                }
                let (_, index) =
                    self.shell.modules[*module].exports.get(name).with_context(|| format!("no export {name}"))?;
                self.resolve(instance, space, *index)
            }
        }
    }

    /// What the fix-up puts into the shim's table at `name`, which is a number.
    fn behind_shim(&self, name: &str) -> Result<Origin> {
        let fixup = self.fixup.context("a shim without its fix-up")?;
        let module = self.module(fixup)?;
        for element in &module.elements {
            let ElementKind::Active { table_index, .. } = &element.kind else { continue };
            let imported = module.imported[Space::Table.index()].get(table_index.unwrap_or(0) as usize);
            if imported.is_none_or(|import| module.imports[*import].1 != SHIM_TABLE) {
                continue;
            }
            let ElementItems::Functions(functions) = element.items.clone() else {
                bail!("the fix-up's elements are expressions")
            };
            let position: usize = name.parse().context("a shim's export is a number")?;
            let function = functions.into_iter().nth(position).context("the fix-up's elements are too few")??;
            return Ok(match self.resolve(fixup, Space::Func, function)? {
                Origin::Canon(_) => Origin::Canon(None),
                origin => origin,
            });
        }
        bail!("the fix-up fills no table of the shim")
    }

    fn find_written(&self) -> Result<HashSet<(usize, u32)>> {
        let mut written = HashSet::new();
        for &instance in &self.instances {
            for body in &self.module(instance)?.code {
                let mut operators = body.get_operators_reader()?;
                while !operators.eof() {
                    if let Operator::GlobalSet { global_index } = operators.read()?
                        && let Origin::Defined(owner, index) = self.resolve(instance, Space::Global, global_index)?
                    {
                        written.insert((owner, index));
                    }
                }
            }
            // A global that the component itself hands out is not known to stay.
            for (name, (kind, index)) in &self.module(instance)?.exports {
                if *kind == ExternalKind::Global
                    && self.shell.items[Space::Global.index()]
                        .iter()
                        .any(|item| matches!(item, Item::Alias(_, alias) if alias == name))
                {
                    self.resolve(instance, Space::Global, *index)?;
                }
            }
        }
        Ok(written)
    }

    /// The value that a global of a module has for ever: immutable, or never written. (The slots of dynamic linking are of the latter kind.)
    pub(super) fn constant_global(&self, instance: usize, index: u32) -> Result<Option<Constant>> {
        let Origin::Defined(owner, defined) = self.resolve(instance, Space::Global, index)? else {
            bail!("a global that the canonical ABI gives")
        };
        let global = &self.module(owner)?.globals[defined as usize];
        if global.ty.mutable && self.written.contains(&(owner, defined)) {
            return Ok(None);
        }
        self.evaluate(owner, &global.init_expr)
    }

    /// The value of a constant expression; none where it depends on what is not known.
    pub(super) fn evaluate(&self, instance: usize, expression: &ConstExpr) -> Result<Option<Constant>> {
        let mut stack = vec![];
        for operator in expression.get_operators_reader() {
            match operator? {
                Operator::I32Const { value } => stack.push(Constant::I32(value)),
                Operator::I64Const { value } => stack.push(Constant::I64(value)),
                Operator::GlobalGet { global_index } => match self.constant_global(instance, global_index)? {
                    Some(value) => stack.push(value),
                    None => return Ok(None),
                },
                operator @ (Operator::I32Add | Operator::I32Sub) => {
                    let (Some(Constant::I32(b)), Some(Constant::I32(a))) = (stack.pop(), stack.pop()) else {
                        return Ok(None);
                    };
                    let adds = matches!(operator, Operator::I32Add);
                    stack.push(Constant::I32(if adds { a.wrapping_add(b) } else { a.wrapping_sub(b) }));
                }
                Operator::End => {}
                _ => return Ok(None),
            }
        }
        Ok(stack.pop())
    }
}
