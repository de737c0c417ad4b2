//! What became of the last reload of the configuration and of each filter, for `/filters` and the
//! metrics.
//!
//! Reloads are rare, so one lock is enough. This module does not know: how files are loaded.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 1000;

/// The last reloads.
#[derive(Debug, Default)]
pub struct ReloadStatus(Mutex<LastReloads>);

/// A copy of the state.
#[derive(Debug, Clone, Default)]
pub struct LastReloads {
    /// Of the configuration. `None` before the start is complete.
    pub config: Option<Reload>,
    /// By the filter's name.
    pub filters: BTreeMap<String, FilterReloads>,
}

/// The last reload, and the last one that succeeded.
#[derive(Debug, Clone)]
pub struct Reload {
    /// When the present state went into service.
    pub serving_since: SystemTime,
    /// The refusal, if the last reload was refused.
    pub refused: Option<Refusal>,
}

/// The reloads of one filter.
#[derive(Debug, Clone)]
pub struct FilterReloads {
    /// The digest of the version in service.
    digest: String,
    /// Its last reload.
    pub reload: Reload,
}

/// A refused reload.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// When.
    pub at: SystemTime,
    /// Why, for the operator.
    pub reason: String,
}

impl ReloadStatus {
    /// A configuration is in service.
    pub fn apply_config(&self) {
        self.change(|last| last.config = Some(Reload { serving_since: SystemTime::now(), refused: None }));
    }

    /// A configuration was refused.
    pub fn refuse_config(&self, reason: &str) {
        let refused = Some(Refusal::new(reason));
        self.change(|last| {
            if let Some(config) = &mut last.config {
                config.refused = refused;
            }
        });
    }

    /// These filters are in service, by name and digest, and no others.
    pub fn serve<'a>(&self, filters: impl Iterator<Item = (&'a str, &'a str)>) {
        self.change(|last| {
            let mut previous = std::mem::take(&mut last.filters);
            for (name, digest) in filters {
                let own = previous.remove(name).filter(|own| own.digest == digest).unwrap_or_else(|| FilterReloads {
                    digest: digest.to_owned(),
                    reload: Reload { serving_since: SystemTime::now(), refused: None },
                });
                last.filters.insert(name.to_owned(), own);
            }
        });
    }

    /// A file was refused, and the version before it stays in service.
    pub fn refuse_filter(&self, name: &str, reason: &str) {
        self.change(|last| {
            if let Some(filter) = last.filters.get_mut(name) {
                filter.reload.refused = Some(Refusal::new(reason));
            }
        });
    }

    /// A file is the one in service again, or a new one was accepted.
    pub fn accept_filter(&self, name: &str) {
        self.change(|last| {
            if let Some(filter) = last.filters.get_mut(name) {
                filter.reload.refused = None;
            }
        });
    }

    /// A copy of the state.
    pub fn get(&self) -> LastReloads {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut LastReloads)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Refusal {
    fn new(reason: &str) -> Self {
        Self { at: SystemTime::now(), reason: reason.chars().take(REASON_CHARS_MAX).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stays_until_a_file_is_accepted() {
        let status = ReloadStatus::default();
        status.serve([("f", "1"), ("g", "1")].into_iter());
        let since = status.get().filters["f"].reload.serving_since;
        status.refuse_filter("f", "no wasm");
        status.serve([("f", "1")].into_iter());
        let last = status.get();
        assert_eq!(last.filters.len(), 1);
        assert_eq!(last.filters["f"].reload.serving_since, since, "the same version");
        assert_eq!(last.filters["f"].reload.refused.as_ref().map(|refused| refused.reason.as_str()), Some("no wasm"));
        status.serve([("f", "2")].into_iter());
        assert!(status.get().filters["f"].reload.refused.is_none());
    }
}
