//! Resolves an index of a core module to its definition, through imports, instances and aliases.
//!
//! The encoder adds two modules to a component that calls the host. The functions of the shim call
//! through a table. The element segment of the fixup fills that table with the host's functions. A
//! call of a shim function therefore resolves to the function that the fixup puts into the table.
//! This module does not know: how modules are merged.

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail, ensure};
use wasmparser::{ConstExpr, ElementItems, ElementKind, ExternalKind, Operator};

use super::parse::{ComponentCore, CoreInstance, Item, Module, Space};

/// The table that the shim exports and the fixup fills.
const SHIM_TABLE: &str = "$imports";

/// The definition of an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A core instance, and the index among the items that its module defines.
    Defined(usize, u32),
    /// A function of the canonical ABI, with the module and field by which a core module imports
    /// it. `None` if a component uses the function without a core import.
    Canon(Option<(String, String)>),
}

/// The value of a global or of a constant expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constant {
    I32(i32),
    I64(i64),
}

/// The core side of a component, with its shim and fixup identified.
pub(super) struct Linked<'a> {
    pub(super) core: ComponentCore<'a>,
    /// Core instances made from modules, in order, without the shim and the stubs.
    pub(super) instances: Vec<usize>,
    shim: Option<usize>,
    /// Core instances whose functions only trap. An import from one counts as undefined.
    stubs: HashSet<usize>,
    fixup: Option<usize>,
    /// Defined globals that some code writes.
    written: HashSet<(usize, u32)>,
}

impl<'a> Linked<'a> {
    pub(super) fn new(core: ComponentCore<'a>) -> Result<Self> {
        let mut linked =
            Self { core, instances: vec![], shim: None, stubs: HashSet::new(), fixup: None, written: HashSet::new() };
        let mut seen = HashSet::new();
        for index in 0..linked.core.instances.len() {
            let CoreInstance::Module { module, .. } = &linked.core.instances[index] else { continue };
            ensure!(seen.insert(*module), "a core module is instantiated twice");
            let module = &linked.core.modules[*module];
            let is_shim = module.exports.contains_key(SHIM_TABLE) && module.tables.len() == 1;
            if module.imports.iter().any(|import| import.1 == SHIM_TABLE) {
                linked.fixup = Some(index);
            }
            if is_shim {
                linked.shim = Some(index);
            } else if is_stub(module)? {
                linked.stubs.insert(index);
            } else {
                linked.instances.push(index);
            }
        }
        linked.written = linked.written_globals()?;
        Ok(linked)
    }

    /// The module of a core instance.
    ///
    /// # Errors
    ///
    /// The instance is not made from a module.
    pub(super) fn module(&self, instance: usize) -> Result<&Module<'a>> {
        match &self.core.instances[instance] {
            CoreInstance::Module { module, .. } => Ok(&self.core.modules[*module]),
            CoreInstance::Exports(_) => bail!("core instance {instance} is not made from a module"),
        }
    }

    /// The start functions. They run when the component is instantiated.
    pub(super) fn starts(&self) -> Result<Vec<Origin>> {
        let mut starts = vec![];
        for (instance, origin) in self.core.instances.iter().enumerate() {
            let CoreInstance::Module { module, .. } = origin else { continue };
            if let Some(index) = self.core.modules[*module].start {
                starts.push(self.resolve(instance, Space::Func, index)?);
            }
        }
        Ok(starts)
    }

    /// Whether this is the first operator of a function. A function that begins with `unreachable`
    /// only traps, and one that begins with `end` only returns.
    pub(super) fn begins_with(&self, function: &Origin, expected: &Operator) -> Result<bool> {
        let Origin::Defined(instance, index) = function else { return Ok(false) };
        let body = self.module(*instance)?.code.get(*index as usize).context("a function has no body")?;
        Ok(body.get_operators_reader()?.read()? == *expected)
    }

    /// Whether the instance is the fixup, which has no code.
    pub(super) fn is_fixup(&self, instance: usize) -> bool {
        self.fixup == Some(instance)
    }

    /// The definition of an item that a module names by `index`.
    pub(super) fn resolve(&self, instance: usize, space: Space, index: u32) -> Result<Origin> {
        let module = self.module(instance)?;
        let imported = &module.imported[space.index()];
        let Some(&import) = imported.get(index as usize) else {
            return Ok(Origin::Defined(instance, index - imported.len() as u32));
        };
        let (from, field, _) = module.imports[import];
        let CoreInstance::Module { arguments, .. } = &self.core.instances[instance] else {
            bail!("core instance {instance} has no arguments")
        };
        let argument = *arguments
            .get(from)
            .with_context(|| format!("core instance {instance} has no argument for the import {from}"))?;
        Ok(match self.export(argument, field, space)? {
            Origin::Canon(None) => Origin::Canon(Some((from.to_owned(), field.to_owned()))),
            origin => origin,
        })
    }

    /// The definition of an item that the component names by `index`.
    pub(super) fn item(&self, space: Space, index: u32) -> Result<Origin> {
        match self.core.items[space.index()]
            .get(index as usize)
            .context("a core index of the component is out of range")?
        {
            Item::Canon => Ok(Origin::Canon(None)),
            Item::Alias(instance, name) => self.export(*instance, name, space),
        }
    }

    /// Whether a core function of the component comes from a module of stubs.
    pub(super) fn is_stub(&self, index: u32) -> bool {
        let item = self.core.items[Space::Func.index()].get(index as usize);
        matches!(item, Some(Item::Alias(instance, _)) if self.stubs.contains(instance))
    }

    /// The export name of a core function of the component.
    pub(super) fn item_name(&self, index: u32) -> Option<&'a str> {
        match self.core.items[Space::Func.index()].get(index as usize)? {
            Item::Alias(_, name) => Some(name),
            Item::Canon => None,
        }
    }

    fn export(&self, instance: usize, name: &str, space: Space) -> Result<Origin> {
        match &self.core.instances[instance] {
            CoreInstance::Exports(exports) => {
                let (_, index) = exports.get(name).with_context(|| format!("there is no export {name}"))?;
                self.item(space, *index)
            }
            CoreInstance::Module { module, .. } => {
                if Some(instance) == self.shim && space == Space::Func {
                    return self.shim_target(name);
                }
                if self.stubs.contains(&instance) {
                    return Ok(Origin::Canon(None));
                }
                let (_, index) = self.core.modules[*module]
                    .exports
                    .get(name)
                    .with_context(|| format!("there is no export {name}"))?;
                self.resolve(instance, space, *index)
            }
        }
    }

    /// The function that the fixup puts into the shim's table for the export `name`, which is a
    /// number.
    fn shim_target(&self, name: &str) -> Result<Origin> {
        let fixup = self.fixup.context("the shim has no fixup")?;
        let module = self.module(fixup)?;
        for element in &module.elements {
            let ElementKind::Active { table_index, .. } = &element.kind else { continue };
            let imported = module.imported[Space::Table.index()].get(table_index.unwrap_or(0) as usize);
            if imported.is_none_or(|import| module.imports[*import].1 != SHIM_TABLE) {
                continue;
            }
            let ElementItems::Functions(functions) = element.items.clone() else {
                bail!("the elements of the fixup are expressions")
            };
            let position: usize = name.parse().context("an export of the shim is not a number")?;
            let function = functions.into_iter().nth(position).context("the fixup has too few elements")??;
            return Ok(match self.resolve(fixup, Space::Func, function)? {
                Origin::Canon(_) => Origin::Canon(None),
                origin => origin,
            });
        }
        bail!("the fixup does not fill the table of the shim")
    }

    /// The globals that code writes.
    ///
    /// An exported global needs no special treatment. A component can pass a core global only to
    /// its own core instances, and the code of all of them is read here.
    fn written_globals(&self) -> Result<HashSet<(usize, u32)>> {
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
        }
        Ok(written)
    }

    /// The value of a global that never changes: it is immutable, or no code writes it. The slots
    /// of dynamic linking are mutable globals that no code writes.
    pub(super) fn constant_global(&self, instance: usize, index: u32) -> Result<Option<Constant>> {
        let Origin::Defined(owner, defined) = self.resolve(instance, Space::Global, index)? else {
            bail!("the canonical ABI defines no globals")
        };
        let global = &self.module(owner)?.globals[defined as usize];
        if global.ty.mutable && self.written.contains(&(owner, defined)) {
            return Ok(None);
        }
        self.evaluate(owner, &global.init_expr)
    }

    /// The data stack of a guest that wit-component linked from libraries: it begins at address 0,
    /// and this is the global with its top, and the top. `None` for a guest of another kind, whose
    /// stack may be anywhere.
    pub(super) fn data_stack(&self) -> Result<Option<((usize, u32), i32)>> {
        let mut found = None;
        let mut is_linked = false;
        for &instance in &self.instances {
            let module = self.module(instance)?;
            is_linked |= module.imports.iter().any(|(_, field, _)| *field == "__memory_base");
            if let Some((ExternalKind::Global, index)) = module.exports.get("__stack_pointer")
                && let Origin::Defined(owner, defined) = self.resolve(instance, Space::Global, *index)?
            {
                let top = self.evaluate(owner, &self.module(owner)?.globals[defined as usize].init_expr)?;
                found = top.map(|top| ((owner, defined), top));
            }
        }
        Ok(match found {
            Some((global, Constant::I32(top))) if is_linked => Some((global, top)),
            _ => None,
        })
    }

    /// The value of a constant expression, or `None` if it is not known at build time.
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

/// Whether a module has nothing but functions that trap. The tools of a language make such modules
/// for imports that the component must not have.
fn is_stub(module: &Module) -> Result<bool> {
    let has_other = !module.imports.is_empty() || !module.memories.is_empty() || !module.tables.is_empty();
    if has_other || module.code.is_empty() || module.start.is_some() || !module.globals.is_empty() {
        return Ok(false);
    }
    for body in &module.code {
        if body.get_operators_reader()?.read()? != Operator::Unreachable {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimize::parse::component_cores;

    /// `$g` and `$h` are exported and aliased. Another core instance writes `$g` and reads `$h`.
    const ALIASED_GLOBALS: &str = r#"(component
        (core module $owner
            (global (export "g") (mut i32) (i32.const 1))
            (global (export "h") (mut i32) (i32.const 2)))
        (core instance $owner (instantiate $owner))
        (alias core export $owner "g" (core global $g))
        (alias core export $owner "h" (core global $h))
        (core instance $items (export "x" (global $g)) (export "y" (global $h)))
        (core module $user
            (import "items" "x" (global $x (mut i32)))
            (import "items" "y" (global $y (mut i32)))
            (func (global.set $x (global.get $y))))
        (core instance (instantiate $user (with "items" (instance $items)))))"#;

    #[test]
    fn an_aliased_global_is_constant_unless_an_instance_of_the_component_writes_it() -> Result<()> {
        let bytes = wat::parse_str(ALIASED_GLOBALS)?;
        wasmparser::Validator::new().validate_all(&bytes)?;
        let core = component_cores(&bytes)?.pop().context("there is one component")?;
        let linked = Linked::new(core)?;
        let owner = linked.instances[0];
        assert_eq!(linked.constant_global(owner, 0)?, None);
        assert_eq!(linked.constant_global(owner, 1)?, Some(Constant::I32(2)));
        Ok(())
    }
}
