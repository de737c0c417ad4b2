//! Removes the series of routes and filter versions that are no longer in service.
//!
//! Every snapshot has an [`Owner`] for each of its routes and filter versions. The last owner with
//! a name removes the series that were created for it. Exchanges keep their snapshot, so none of
//! them can count in a removed series.
//!
//! This module does not know: which metrics there are.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};

/// Counts in a series that has begun and is not forgotten.
pub fn count_known<S: Clone + Eq + Hash>(family: &Family<S, Counter>, labels: &S) {
    if let Some(counter) = family.get(labels) {
        counter.inc();
    }
}

/// All owners, by name.
#[derive(Clone, Default)]
pub(super) struct Owners(Arc<Mutex<HashMap<String, Owned>>>);

#[derive(Default)]
struct Owned {
    owners: usize,
    removals: Vec<Box<dyn FnOnce() + Send>>,
}

/// Keeps the series of one route or filter version. Several owners may have the same name.
pub(super) struct Owner {
    name: String,
    owners: Owners,
}

impl Owners {
    /// An owner with this name.
    pub(super) fn add(&self, name: String) -> Arc<Owner> {
        self.lock().entry(name.clone()).or_default().owners += 1;
        Arc::new(Owner { name, owners: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Owned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner {
    /// A series of this owner's. It is created if there is none.
    pub(super) fn series<S, M, C>(&self, family: &Family<S, M, C>, labels: &S) -> M
    where
        S: Clone + Eq + Hash + Debug + Send + Sync + 'static,
        M: Clone + Send + Sync + 'static,
        C: MetricConstructor<M> + Clone + Send + Sync + 'static,
    {
        if family.get(labels).is_none() {
            let (own_family, own_labels) = (family.clone(), labels.clone());
            let remove = move || {
                own_family.remove(&own_labels);
            };
            self.owners.lock().entry(self.name.clone()).or_default().removals.push(Box::new(remove));
        }
        family.get_or_create_owned(labels)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut all = self.owners.lock();
        let Some(owned) = all.get_mut(&self.name) else { return };
        owned.owners -= 1;
        if owned.owners > 0 {
            return;
        }
        // Under the lock, so that no new owner with this name gets a series that is removed.
        for remove in all.remove(&self.name).unwrap_or_default().removals {
            remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;

    #[test]
    fn the_last_owner_removes_the_series() {
        let metrics = Metrics::new();
        let empty = metrics.encode();
        for version in 0..100 {
            let (name, version) = (format!("route-{version}").into(), format!("1.0.{version}").into());
            let (old, new) = (metrics.route(std::sync::Arc::clone(&name)), metrics.route(name));
            old.count("GET", 200, 0.1, None);
            drop(old);
            (500..520).for_each(|status| new.count("GET", status, 0.1, None));
            let filter = metrics.filter("f".into(), version, "d".into(), "open");
            filter.count_failure(witgate_http::error::FilterFailure::Trap);
            assert!(metrics.encode().contains(",status=\"200\"} 1"), "the second owner keeps the series");
        }
        assert_eq!(metrics.encode(), empty);
    }
}
