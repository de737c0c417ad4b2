//! The key-value store and the limiter of an example: in memory, empty at its begin.
//!
//! The runtime checks the bounds of keys and values before it calls a store. One lock guards all
//! entries, because examples run one after the other. This module does not know: examples.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use witgate_runtime::keyvalue::{KeyValue, KeyValueError, Outcome};
use witgate_runtime::limiter::{Decision, LimiterError, Policy, RateLimiter, Usage};

/// The most entries of an example. A filter that makes more gets `full`.
const KEYS_MAX: usize = 10_000;

/// The state of one example. Both services of a filter are this value.
#[derive(Default)]
pub(crate) struct Services {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    counts: HashMap<(Policy, String), Usage>,
}

#[derive(Clone)]
struct Entry {
    value: Value,
    expires: Option<Instant>,
}

/// What the store keeps for a key.
#[derive(Clone, PartialEq)]
pub(crate) enum Value {
    /// Set by the filter as a value.
    Bytes(Vec<u8>),
    /// Made by `increment`.
    Counter(i32),
}

impl Value {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Counter(number) => number.to_string().into_bytes(),
        }
    }
}

impl Entry {
    fn is_live(&self) -> bool {
        self.expires.is_none_or(|expires| expires > Instant::now())
    }
}

impl Services {
    /// Removes everything and adds these entries.
    pub(crate) fn reset(&self, entries: impl IntoIterator<Item = (String, Value)>) {
        let entries = entries.into_iter().map(|(key, value)| (key, Entry { value, expires: None }));
        *self.lock() = State { entries: entries.collect(), counts: HashMap::new() };
    }

    /// The live entries as texts.
    pub(crate) fn entries(&self) -> BTreeMap<String, String> {
        let state = self.lock();
        let live = state.entries.iter().filter(|(_, entry)| entry.is_live());
        live.map(|(key, entry)| (key.clone(), String::from_utf8_lossy(&entry.value.to_bytes()).into_owned())).collect()
    }

    /// Ignores poisoning: a panic while the lock is held cannot leave an entry half-changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn live(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.is_live())
    }

    fn insert(&mut self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), KeyValueError> {
        if self.entries.len() >= KEYS_MAX && !self.entries.contains_key(key) {
            return Err(KeyValueError::Full);
        }
        self.entries.insert(key.to_owned(), Entry { value, expires: ttl.map(|ttl| Instant::now() + ttl) });
        Ok(())
    }
}

impl KeyValue for Services {
    fn get<'a>(&'a self, key: &'a str) -> Outcome<'a, Option<Vec<u8>>> {
        Outcome::Ready(Ok(self.lock().live(key).map(|entry| entry.value.to_bytes())))
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Outcome<'a, Vec<Option<Vec<u8>>>> {
        let state = self.lock();
        Outcome::Ready(Ok(keys.iter().map(|key| state.live(key).map(|entry| entry.value.to_bytes())).collect()))
    }

    fn set<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Option<Duration>) -> Outcome<'a, ()> {
        Outcome::Ready(self.lock().insert(key, Value::Bytes(value.to_vec()), ttl))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Outcome<'a, bool> {
        Outcome::Ready(Ok(self.lock().entries.remove(key).is_some_and(|entry| entry.is_live())))
    }

    fn increment<'a>(&'a self, key: &'a str, delta: i32, ttl: Option<Duration>) -> Outcome<'a, i32> {
        let mut state = self.lock();
        let (before, expires) = match state.live(key) {
            None => (0, ttl.map(|ttl| Instant::now() + ttl)),
            Some(Entry { value: Value::Counter(number), expires }) => (*number, *expires),
            Some(_) => return Outcome::Ready(Err(KeyValueError::NotANumber)),
        };
        Outcome::Ready(before.checked_add(delta).ok_or(KeyValueError::NotANumber).and_then(|sum| {
            state.insert(key, Value::Counter(sum), None)?;
            if let Some(entry) = state.entries.get_mut(key) {
                entry.expires = expires;
            }
            Ok(sum)
        }))
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        value: &'a [u8],
        ttl: Option<Duration>,
    ) -> Outcome<'a, bool> {
        let mut state = self.lock();
        let found = state.live(key).map(|entry| entry.value.to_bytes());
        if found.as_deref() != expected {
            return Outcome::Ready(Ok(false));
        }
        Outcome::Ready(state.insert(key, Value::Bytes(value.to_vec()), ttl).map(|()| true))
    }
}

impl RateLimiter for Services {
    /// The clock of the policies stands still, so that an example has the same result whenever it
    /// runs.
    fn take<'a>(&'a self, key: &'a str, cost: u32, policy: &'a Policy) -> Outcome<'a, Decision, LimiterError> {
        let mut state = self.lock();
        if state.counts.len() >= KEYS_MAX && !state.counts.contains_key(&(*policy, key.to_owned())) {
            return Outcome::Ready(Err(LimiterError::Unavailable("an example has too many keys".into())));
        }
        let usage = state.counts.entry((*policy, key.to_owned())).or_default();
        Outcome::Ready(Ok(policy.decide(usage, 0, cost)))
    }
}
