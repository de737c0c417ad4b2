//! The key-value store and the limiter of an example: in memory, empty at its begin.
//!
//! This module does not know: examples.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value as Json;
use witgate_runtime::keyvalue::{KeyValueError, Outcome};
use witgate_runtime::limiter::{Decision, LimiterError, Policy, RateLimiter, Usage};
use witgate_runtime::memory_store::{Limits, MemoryStore};

/// The most entries of an example, and of its limiter.
const KEYS_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 << 20;

/// The state of one example.
pub(crate) struct Services {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) limiter: Arc<StillLimiter>,
}

/// A limiter whose clock stands still, so that an example has the same result whenever it runs.
#[derive(Default)]
pub(crate) struct StillLimiter(Mutex<HashMap<(Policy, String), Usage>>);

impl Services {
    pub(crate) fn new() -> Self {
        let store = MemoryStore::new(Limits { keys_max: KEYS_MAX, bytes_max: BYTES_MAX });
        Self { store: Arc::new(store), limiter: Arc::default() }
    }

    /// Removes everything and adds these entries. An integer becomes a counter.
    pub(crate) fn reset(&self, entries: &BTreeMap<String, Json>) -> Result<(), KeyValueError> {
        self.store.clear();
        self.limiter.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for (key, value) in entries {
            match value.as_i64().and_then(|number| i32::try_from(number).ok()) {
                Some(number) => self.store.increment_now(key, number, None).map(drop)?,
                None => {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    self.store.set_now(key, text.as_bytes(), None)?;
                }
            }
        }
        Ok(())
    }

    /// The live entries as texts.
    pub(crate) fn entries(&self) -> BTreeMap<String, String> {
        let text = |(key, value): (String, Vec<u8>)| (key, String::from_utf8_lossy(&value).into_owned());
        self.store.entries().into_iter().map(text).collect()
    }
}

impl RateLimiter for StillLimiter {
    fn take<'a>(&'a self, key: &'a str, cost: u32, policy: &'a Policy) -> Outcome<'a, Decision, LimiterError> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= KEYS_MAX && !counts.contains_key(&(*policy, key.to_owned())) {
            return Outcome::Ready(Err(LimiterError::Unavailable("an example has too many keys".into())));
        }
        let usage = counts.entry((*policy, key.to_owned())).or_default();
        Outcome::Ready(Ok(policy.decide(usage, 0, cost)))
    }
}
