//! Merges the core modules of a component into one module.
//!
//! `plan` decides every index of the result, `write` copies code, tables and data, and `module`
//! encodes the sections. Gain: nothing is linked at instantiation. Unmerged, the element segments
//! of a CPython guest fill its tables with 5,676 function references in every instance.
//! Price: the builder must understand every construct that it merges; it refuses a component that
//! has another. This module does not know: how imports are resolved (`link`).

mod module;
mod plan;
mod write;

use anyhow::Result;

use super::host_table::TableInitializer;
use super::immortal_objects;
use super::link::Linked;
use super::world::WorldNames;
use plan::Plan;
use write::Sections;

/// The merged module and its companions.
pub(super) struct Merged {
    pub(super) module: Vec<u8>,
    /// A module for the encoder, with the types of the merged module but without its code. It
    /// imports the host's functions instead of having a table of them.
    pub(super) dummy: Vec<u8>,
    /// `None` if the guest calls no function of the host.
    pub(super) initializer: Option<TableInitializer>,
    /// The number of objects that were made immortal, or the reason for none.
    pub(super) immortal_objects: Result<usize>,
}

/// Merges all core modules of a component.
///
/// # Errors
///
/// The component has something that cannot be merged; the text says what.
pub(super) fn merge(linked: &Linked, world: &WorldNames) -> Result<Merged> {
    let plan = Plan::new(linked, world)?;
    let mut sections = Sections::default();
    sections.write(&plan)?;
    let immortal_objects = immortal_objects::apply(sections.image.bytes());
    sections.data_count += sections.image.segments(&mut sections.data)?;
    let exports = plan.exports(world)?;
    let dummy = module::dummy(&plan, &sections, &exports)?;
    let initializer = TableInitializer::new(&plan.host, &module::type_section(&plan)?);
    Ok(Merged { module: module::encode(&plan, sections, &exports)?, dummy, initializer, immortal_objects })
}
