//! The names by which the core module of a world imports and exports.
//!
//! This module does not know: modules.

use std::collections::HashSet;

use wit_parser::{Resolve, WorldId, WorldItem, WorldKey};

/// The import and export names of a world.
pub(super) struct WorldNames {
    imports: HashSet<String>,
    exports: HashSet<String>,
}

impl WorldNames {
    pub(super) fn new(resolve: &Resolve, world: WorldId) -> Self {
        let world = &resolve.worlds[world];
        let import = |(key, item): (&WorldKey, &WorldItem)| match item {
            // A core module imports a function of the world itself from the module `$root`.
            WorldItem::Function(_) => "$root".to_owned(),
            _ => resolve.name_world_key(key),
        };
        Self {
            imports: world.imports.iter().map(import).collect(),
            exports: world.exports.keys().map(|key| resolve.name_world_key(key)).collect(),
        }
    }

    /// Whether the host defines a core import from the module of this name.
    pub(super) fn is_import(&self, module: &str) -> bool {
        self.imports.contains(module)
    }

    /// Whether the world has this core export, such as
    /// `witgate:gateway/request-handler@0.1.0#handle-request`.
    pub(super) fn is_export(&self, name: &str) -> bool {
        name.split('#').next().is_some_and(|interface| self.exports.contains(interface))
    }
}
