//! What filters keep between calls: the key-value stores that the gateway provides.
//!
//! A store outlives the versions of its filter, so a new release finds the entries of the last.
//! This module does not know: how filters are loaded or called.

mod memory;

use std::collections::HashMap;
use std::sync::Arc;

pub use memory::{Limits, MemoryStore};
use witgate_runtime::keyvalue::KeyValue;

/// The stores of all configured filters, by the filter's name.
#[derive(Default)]
pub struct Stores(HashMap<String, Arc<MemoryStore>>);

impl Stores {
    /// The store of a filter. Creates it if there is none, or if its limits differ: to shrink a
    /// store in use, the gateway would have to choose entries to remove.
    pub fn get(&mut self, filter: &str, limits: Limits) -> Arc<dyn KeyValue> {
        if let Some(store) = self.0.get(filter).filter(|store| store.limits() == limits) {
            return store.clone();
        }
        let store = Arc::new(MemoryStore::new(limits));
        self.0.insert(filter.to_owned(), store.clone());
        store
    }

    /// Drops the stores of filters that are not configured.
    pub fn retain(&mut self, is_configured: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_configured(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_keeps_its_store_while_its_limits_stay() {
        let mut stores = Stores::default();
        let limits = Limits { keys_max: 2, bytes_max: 1000 };
        let first = stores.get("a", limits);
        assert!(Arc::ptr_eq(&first, &stores.get("a", limits)));
        assert!(!Arc::ptr_eq(&first, &stores.get("b", limits)));
        assert!(!Arc::ptr_eq(&first, &stores.get("a", Limits { keys_max: 3, ..limits })));
        stores.retain(|name| name == "b");
        assert_eq!(stores.0.len(), 1);
    }
}
