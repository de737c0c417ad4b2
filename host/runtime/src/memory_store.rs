//! The key-value store in memory: one per filter, shared by all threads. Examples of filters use it
//! too.
//!
//! Gain: the entries are in 16 shards with a mutex each, and an operation holds one mutex for one
//! access to a hash map, never across an await, so threads rarely wait for each other. Price: the
//! bounds on keys and bytes hold over all shards, so two atomic counters keep them.
//!
//! Each shard has an index of its entries by expiry. An insertion removes a few expired entries of
//! its shard. If a bound is reached, the store removes expired entries, oldest first, until the new
//! entry fits, so an insertion into a full store costs what it removes. The store never removes a
//! live entry: if nothing has expired, it answers `Full`.
//! This module does not know: WIT, filters, configuration files.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::keyvalue::{KeyValue, KeyValueError, Outcome};

const SHARDS: usize = 16;
/// Bytes that an entry counts beside its key and value: its places in the map and in the index.
const ENTRY_OVERHEAD_BYTES: usize = 160;
/// Expired entries that an insertion removes from its shard, and that a full store removes from
/// each shard at a time.
const REMOVED_PER_INSERTION: usize = 2;
const REMOVED_WHEN_FULL: usize = 32;

/// A bounded map with expiry.
pub struct MemoryStore {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    limits: Limits,
    keys: AtomicUsize,
    bytes: AtomicUsize,
}

/// The bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of keys.
    pub keys_max: usize,
    /// The largest number of bytes: keys, values and 160 bytes per entry.
    pub bytes_max: usize,
}

/// A part of the entries, and those that expire in the order of their expiry.
#[derive(Default)]
struct Shard {
    entries: HashMap<Arc<str>, Entry>,
    by_expiry: BTreeSet<(Instant, Arc<str>)>,
}

struct Entry {
    value: Value,
    expires: Option<Instant>,
}

enum Value {
    Bytes(Vec<u8>),
    Counter(i32),
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            limits,
            keys: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The bounds of this store.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Removes all entries.
    pub fn clear(&self) {
        for shard in &self.shards {
            let removed = std::mem::take(&mut *lock(shard));
            removed.entries.iter().for_each(|(key, entry)| self.release(entry.cost(key)));
        }
    }

    /// A copy of all live entries, in any order. An operation at the same time may be missed.
    pub fn entries(&self) -> Vec<(String, Vec<u8>)> {
        let live = |shard: &Mutex<Shard>| -> Vec<_> {
            let shard = lock(shard);
            let live = shard.entries.iter().filter(|(_, entry)| entry.is_live());
            live.map(|(key, entry)| (String::from(&**key), entry.value.to_bytes())).collect()
        };
        self.shards.iter().flat_map(live).collect()
    }

    fn get_now(&self, key: &str) -> Option<Vec<u8>> {
        let shard = self.shard(key);
        shard.entries.get(key).filter(|entry| entry.is_live()).map(|entry| entry.value.to_bytes())
    }

    /// As [`KeyValue::set`].
    ///
    /// # Errors
    ///
    /// There is no room.
    pub fn set_now(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), KeyValueError> {
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        self.with_room(|| self.insert(self.shard(key), key, Entry { value: Value::Bytes(value.to_vec()), expires }))
    }

    fn delete_now(&self, key: &str) -> bool {
        let removed = self.shard(key).remove(key);
        removed.is_some_and(|entry| {
            self.release(entry.cost(key));
            entry.is_live()
        })
    }

    /// As [`KeyValue::increment`].
    ///
    /// # Errors
    ///
    /// There is no room, or the value is not a counter.
    pub fn increment_now(&self, key: &str, delta: i32, ttl: Option<Duration>) -> Result<i32, KeyValueError> {
        self.with_room(|| {
            let mut shard = self.shard(key);
            if let Some(entry) = shard.entries.get_mut(key).filter(|entry| entry.is_live()) {
                let Value::Counter(number) = &mut entry.value else { return Err(KeyValueError::NotANumber) };
                *number = number.checked_add(delta).ok_or(KeyValueError::NotANumber)?;
                return Ok(*number);
            }
            // The lock is still held: two first increments cannot both start the counter.
            let entry = Entry { value: Value::Counter(delta), expires: ttl.map(|ttl| Instant::now() + ttl) };
            self.insert(shard, key, entry).map(|()| delta)
        })
    }

    fn compare_and_swap_now(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KeyValueError> {
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        self.with_room(|| {
            let shard = self.shard(key);
            let current = shard.entries.get(key).filter(|entry| entry.is_live()).map(|entry| entry.value.to_bytes());
            if current.as_deref() != expected {
                return Ok(false);
            }
            // The lock is still held: nobody can change the value in between.
            self.insert(shard, key, Entry { value: Value::Bytes(value.to_vec()), expires }).map(|()| true)
        })
    }

    /// Runs `operation`. While the store is full, removes expired entries and runs it again.
    fn with_room<T>(&self, operation: impl Fn() -> Result<T, KeyValueError>) -> Result<T, KeyValueError> {
        loop {
            match operation() {
                Err(KeyValueError::Full) if self.remove_expired() => {}
                result => return result,
            }
        }
    }

    /// Adds or replaces an entry. If there is no room, the old entry stays.
    fn insert(&self, mut shard: MutexGuard<'_, Shard>, key: &str, entry: Entry) -> Result<(), KeyValueError> {
        self.remove_expired_of(&mut shard, REMOVED_PER_INSERTION);
        let replaced = shard.entries.get(key).map(|old| old.cost(key));
        if let Some(cost) = replaced {
            self.release(cost);
        }
        if self.reserve(entry.cost(key)) {
            shard.insert(key.into(), entry);
            return Ok(());
        }
        if let Some(cost) = replaced {
            self.keys.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(cost, Ordering::Relaxed);
        }
        Err(KeyValueError::Full)
    }

    /// Removes some of the expired entries. Returns whether there were any. Holds one shard's lock
    /// at a time.
    fn remove_expired(&self) -> bool {
        let removed: usize =
            self.shards.iter().map(|shard| self.remove_expired_of(&mut lock(shard), REMOVED_WHEN_FULL)).sum();
        removed > 0
    }

    /// Removes at most `max` expired entries of a shard. Returns their number.
    fn remove_expired_of(&self, shard: &mut Shard, max: usize) -> usize {
        if shard.by_expiry.is_empty() {
            return 0;
        }
        let now = Instant::now();
        for removed in 0..max {
            let Some((expires, key)) = shard.by_expiry.first().filter(|(expires, _)| *expires <= now) else {
                return removed;
            };
            let (expires, key) = (*expires, key.clone());
            shard.by_expiry.remove(&(expires, key.clone()));
            if let Some(entry) = shard.entries.remove(&key) {
                self.release(entry.cost(&key));
            }
        }
        max
    }

    /// Reserves room for one key and `cost` bytes. False if there is none.
    fn reserve(&self, cost: usize) -> bool {
        let keys = self.keys.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        let fits = keys <= self.limits.keys_max && bytes <= self.limits.bytes_max;
        if !fits {
            self.release(cost);
        }
        fits
    }

    fn release(&self, cost: usize) {
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(key) as usize % SHARDS])
    }
}

impl Shard {
    /// Adds or replaces an entry, also in the index.
    fn insert(&mut self, key: Arc<str>, entry: Entry) {
        self.remove(&key);
        if let Some(expires) = entry.expires {
            self.by_expiry.insert((expires, key.clone()));
        }
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &str) -> Option<Entry> {
        let (key, entry) = self.entries.remove_entry(key)?;
        if let Some(expires) = entry.expires {
            self.by_expiry.remove(&(expires, key));
        }
        Some(entry)
    }
}

impl KeyValue for MemoryStore {
    fn get<'a>(&'a self, key: &'a str) -> Outcome<'a, Option<Vec<u8>>> {
        Outcome::Ready(Ok(self.get_now(key)))
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Outcome<'a, Vec<Option<Vec<u8>>>> {
        Outcome::Ready(Ok(keys.iter().map(|key| self.get_now(key)).collect()))
    }

    fn set<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Option<Duration>) -> Outcome<'a, ()> {
        Outcome::Ready(self.set_now(key, value, ttl))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Outcome<'a, bool> {
        Outcome::Ready(Ok(self.delete_now(key)))
    }

    fn increment<'a>(&'a self, key: &'a str, delta: i32, ttl: Option<Duration>) -> Outcome<'a, i32> {
        Outcome::Ready(self.increment_now(key, delta, ttl))
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        value: &'a [u8],
        ttl: Option<Duration>,
    ) -> Outcome<'a, bool> {
        Outcome::Ready(self.compare_and_swap_now(key, expected, value, ttl))
    }
}

impl Value {
    /// What a filter reads.
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

    /// The bytes that this entry counts under `key`.
    fn cost(&self, key: &str) -> usize {
        let value = match &self.value {
            Value::Bytes(bytes) => bytes.len(),
            Value::Counter(_) => 0,
        };
        key.len() + value + ENTRY_OVERHEAD_BYTES
    }
}

/// Ignores poisoning: a panic while the lock is held cannot leave the map half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(keys_max: usize) -> MemoryStore {
        MemoryStore::new(Limits { keys_max, bytes_max: 10_000 })
    }

    #[test]
    fn counters_are_atomic_over_threads() {
        let store = store(10);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| assert!(store.increment_now("k", 1, None).is_ok())));
            }
        });
        assert_eq!(store.get_now("k"), Some(b"4000".to_vec()));
        assert_eq!(store.increment_now("k", i32::MAX, None), Err(KeyValueError::NotANumber));
    }

    #[test]
    fn bounds_hold_and_expired_keys_make_room() {
        let store = store(2);
        assert_eq!(store.set_now("a", &[1], Some(Duration::ZERO)), Ok(()));
        assert_eq!(store.set_now("b", &[2], None), Ok(()));
        assert_eq!(store.get_now("a"), None);
        assert_eq!(store.set_now("c", &[3], None), Ok(()));
        assert_eq!(store.set_now("d", &[4], None), Err(KeyValueError::Full));
        assert_eq!(store.set_now("c", &[5; 9], None), Ok(()));
        assert_eq!(store.set_now("c", &[5; 10_000], None), Err(KeyValueError::Full));
        assert_eq!(store.get_now("c"), Some(vec![5; 9]), "a refused set keeps the old value");
        assert!(store.delete_now("b"));
        assert!(!store.delete_now("b"));
    }

    #[test]
    fn a_counter_expires_as_its_first_increment_says() {
        let store = store(2);
        assert_eq!(store.increment_now("k", 5, Some(Duration::ZERO)), Ok(5));
        assert_eq!(store.increment_now("k", 2, Some(Duration::from_secs(60))), Ok(2));
        assert_eq!(store.increment_now("k", 2, Some(Duration::ZERO)), Ok(4));
        assert_eq!(store.set_now("s", b"x", None), Ok(()));
        assert_eq!(store.increment_now("s", 1, None), Err(KeyValueError::NotANumber));
    }

    #[test]
    fn a_full_store_removes_only_what_it_needs() {
        let store = MemoryStore::new(Limits { keys_max: 10_000, bytes_max: usize::MAX });
        let brief = Some(Duration::from_millis(500));
        for key in 0..10_000 {
            let ttl = if key % 2 == 0 { brief } else { None };
            assert_eq!(store.set_now(&key.to_string(), b"", ttl), Ok(()));
        }
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(store.set_now("one more", b"", None), Ok(()));
        let left = store.keys.load(Ordering::Relaxed);
        assert!(left > 9_000, "an insertion does not sweep the whole store: {left}");
        let room = (0..6_000).take_while(|key| store.set_now(&format!("new {key}"), b"", None) == Ok(())).count();
        assert!((4_990..=5_010).contains(&room), "all expired entries make room: {room}");
        assert_eq!(store.set_now("full", b"", None), Err(KeyValueError::Full));
        assert_eq!(store.get_now("1"), Some(vec![]), "live entries stay");
    }

    #[test]
    fn the_index_has_exactly_the_entries_that_expire() {
        let store = store(100);
        let index = || store.shards.iter().map(|shard| lock(shard).by_expiry.len()).sum::<usize>();
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(store.set_now("a", b"1", hour), Ok(()));
        assert_eq!(store.set_now("a", b"2", hour), Ok(()));
        assert_eq!(store.increment_now("n", 1, hour), Ok(1));
        assert_eq!(store.increment_now("n", 1, hour), Ok(2));
        assert_eq!(index(), 2);
        assert_eq!(store.set_now("a", b"3", None), Ok(()));
        assert!(store.delete_now("n"));
        assert_eq!(index(), 0);
    }

    #[test]
    fn a_swap_needs_the_expected_value() {
        let store = store(2);
        assert_eq!(store.compare_and_swap_now("k", Some(b""), b"a", None), Ok(false));
        assert_eq!(store.compare_and_swap_now("k", None, b"a", None), Ok(true));
        assert_eq!(store.compare_and_swap_now("k", None, b"b", None), Ok(false));
        assert_eq!(store.compare_and_swap_now("k", Some(b"a"), b"b", Some(Duration::ZERO)), Ok(true));
        assert_eq!(store.compare_and_swap_now("k", None, b"c", None), Ok(true), "an expired value is absent");
        assert_eq!(store.increment_now("n", 7, None), Ok(7));
        assert_eq!(store.compare_and_swap_now("n", Some(b"7"), b"8", None), Ok(true));
        assert_eq!(store.increment_now("n", 1, None), Err(KeyValueError::NotANumber), "the new value is no counter");
        assert_eq!(store.compare_and_swap_now("m", None, b"x", None), Err(KeyValueError::Full));
    }

    #[test]
    fn a_cleared_store_has_all_its_room_again() {
        let store = store(2);
        assert_eq!(store.set_now("a", b"1", None), Ok(()));
        assert_eq!(store.set_now("b", b"2", Some(Duration::ZERO)), Ok(()));
        assert_eq!(store.entries(), [("a".to_owned(), b"1".to_vec())], "expired entries are absent");
        store.clear();
        assert!(store.entries().is_empty());
        assert_eq!((store.keys.load(Ordering::Relaxed), store.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn every_operation_is_complete_at_once() {
        let store = store(2);
        assert!(matches!(store.set("k", b"v", None), Outcome::Ready(Ok(()))));
        assert!(
            matches!(store.get_many(&["k".into(), "l".into()]), Outcome::Ready(Ok(found)) if found == [Some(b"v".to_vec()), None])
        );
        assert!(matches!(store.get("k"), Outcome::Ready(Ok(Some(_)))));
        assert!(matches!(store.delete("k"), Outcome::Ready(Ok(true))));
        assert!(matches!(store.increment("k", 1, None), Outcome::Ready(Ok(1))));
    }
}
