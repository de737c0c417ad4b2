//! The in-memory key-value store behind `witgate:gateway/keyvalue`: one for each filter, shared by all threads.
//!
//! Sharded mutexes: an operation holds one shard's lock for a hash-map access and never across an await, so two threads
//! rarely meet. The bounds (keys, bytes) hold over all shards through two counters; when they are reached, what has expired is
//! swept before `Full` is answered. Must not know: WIT, filters, config files.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SHARDS: usize = 16;
/// The longest key in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// The largest value in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// What an entry costs beside its key and value.
const ENTRY_OVERHEAD: usize = 64;

/// A bounded map with expiry. Cheap to share behind an `Arc`.
pub struct Store {
    shards: [Mutex<HashMap<String, Entry>>; SHARDS],
    hasher: RandomState,
    keys_max: usize,
    bytes_max: usize,
    keys: AtomicUsize,
    bytes: AtomicUsize,
}

struct Entry {
    value: Value,
    expires: Option<Instant>,
}

enum Value {
    Bytes(Vec<u8>),
    Counter(i32),
}

/// Why an operation was refused; the cases of the WIT interface's `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A key or value outside the bounds of this module's constants.
    TooLarge,
    /// The store's keys or bytes are used up, and nothing in it has expired.
    Full,
    /// Not a counter, or a sum outside `i32`.
    NotANumber,
}

impl Store {
    /// An empty store for at most this many keys and bytes (keys, values and 64 bytes for each entry).
    pub fn new(keys_max: usize, bytes_max: usize) -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            keys_max,
            bytes_max,
            keys: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The most keys and bytes, as given to [`Store::new`].
    pub fn bounds(&self) -> (usize, usize) {
        (self.keys_max, self.bytes_max)
    }

    /// Keys in the store, expired ones that were not swept yet included.
    pub fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Whether the store holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key; a counter as decimal text.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refused> {
        check_key(key)?;
        let shard = self.shard(key);
        Ok(shard.get(key).filter(|entry| entry.is_live()).map(|entry| match &entry.value {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Counter(number) => number.to_string().into_bytes(),
        }))
    }

    /// Sets a key, for `ttl` or for good. Where it is refused, the old value stays.
    pub fn set(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Refused> {
        check_key(key)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        self.with_room(|| self.insert(self.shard(key), key, Entry { value: Value::Bytes(value.to_vec()), expires }))
    }

    /// Removes a key; true where it was there and live.
    pub fn delete(&self, key: &str) -> Result<bool, Refused> {
        check_key(key)?;
        let removed = self.shard(key).remove(key);
        Ok(removed.is_some_and(|entry| {
            self.release(entry.cost(key));
            entry.is_live()
        }))
    }

    /// Adds to a counter and gives the sum. Only a counter that begins here gets `ttl`.
    pub fn increment(&self, key: &str, delta: i32, ttl: Option<Duration>) -> Result<i32, Refused> {
        check_key(key)?;
        self.with_room(|| {
            let mut shard = self.shard(key);
            if let Some(entry) = shard.get_mut(key).filter(|entry| entry.is_live()) {
                let Value::Counter(number) = &mut entry.value else { return Err(Refused::NotANumber) };
                *number = number.checked_add(delta).ok_or(Refused::NotANumber)?;
                return Ok(*number);
            }
            // Still under the same lock: two first increments cannot both begin the counter.
            let entry = Entry { value: Value::Counter(delta), expires: ttl.map(|ttl| Instant::now() + ttl) };
            self.insert(shard, key, entry).map(|()| delta)
        })
    }

    /// Runs `operation`; where the store is full, sweeps what has expired (one lock at a time) and runs it once more.
    fn with_room<T>(&self, operation: impl Fn() -> Result<T, Refused>) -> Result<T, Refused> {
        match operation() {
            Err(Refused::Full) => {
                self.sweep();
                operation()
            }
            result => result,
        }
    }

    fn insert(
        &self,
        mut shard: MutexGuard<'_, HashMap<String, Entry>>,
        key: &str,
        entry: Entry,
    ) -> Result<(), Refused> {
        let replaced = shard.get(key).map(|old| old.cost(key));
        if let Some(cost) = replaced {
            self.release(cost);
        }
        if self.reserve(entry.cost(key)) {
            shard.insert(key.to_owned(), entry);
            return Ok(());
        }
        if let Some(cost) = replaced {
            self.keys.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(cost, Ordering::Relaxed);
        }
        Err(Refused::Full)
    }

    /// Removes what has expired.
    fn sweep(&self) {
        for shard in &self.shards {
            lock(shard).retain(|key, entry| {
                let live = entry.is_live();
                if !live {
                    self.release(entry.cost(key));
                }
                live
            });
        }
    }

    /// Takes a place for one key and `cost` bytes; false where there is none.
    fn reserve(&self, cost: usize) -> bool {
        let keys = self.keys.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        let fits = keys <= self.keys_max && bytes <= self.bytes_max;
        if !fits {
            self.release(cost);
        }
        fits
    }

    fn release(&self, cost: usize) {
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, HashMap<String, Entry>> {
        lock(&self.shards[self.hasher.hash_one(key) as usize % SHARDS])
    }
}

impl Entry {
    fn is_live(&self) -> bool {
        self.expires.is_none_or(|expires| expires > Instant::now())
    }

    fn cost(&self, key: &str) -> usize {
        let value = match &self.value {
            Value::Bytes(bytes) => bytes.len(),
            Value::Counter(_) => 0,
        };
        key.len() + value + ENTRY_OVERHEAD
    }
}

fn check_key(key: &str) -> Result<(), Refused> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX { Err(Refused::TooLarge) } else { Ok(()) }
}

/// A panic while the lock was held cannot leave the map half-changed, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_atomic_over_threads() {
        let store = Store::new(10, 10_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| assert!(store.increment("k", 1, None).is_ok())));
            }
        });
        assert_eq!(store.get("k"), Ok(Some(b"4000".to_vec())));
        assert_eq!(store.increment("k", i32::MAX, None), Err(Refused::NotANumber));
    }

    #[test]
    fn bounds_hold_and_expired_keys_make_room() {
        let store = Store::new(2, 10_000);
        assert_eq!(store.set("a", &[1], Some(Duration::ZERO)), Ok(()));
        assert_eq!(store.set("b", &[2], None), Ok(()));
        assert_eq!(store.get("a"), Ok(None));
        assert_eq!(store.set("c", &[3], None), Ok(()));
        assert_eq!(store.set("d", &[4], None), Err(Refused::Full));
        assert_eq!(store.set("c", &[5; 9], None), Ok(()));
        assert_eq!(store.set("c", &[5; 10_000], None), Err(Refused::Full));
        assert_eq!(store.get("c"), Ok(Some(vec![5; 9])), "a refused set keeps the old value");
        assert_eq!(store.delete("b"), Ok(true));
        assert_eq!(store.delete("b"), Ok(false));
        assert_eq!(store.set("", &[], None), Err(Refused::TooLarge));
        assert_eq!(store.set("e", &[0; VALUE_BYTES_MAX + 1], None), Err(Refused::TooLarge));
    }

    #[test]
    fn a_counter_lives_as_long_as_its_first_increment_said() {
        let store = Store::new(2, 10_000);
        assert_eq!(store.increment("k", 5, Some(Duration::ZERO)), Ok(5));
        assert_eq!(store.increment("k", 2, Some(Duration::from_secs(60))), Ok(2));
        assert_eq!(store.increment("k", 2, Some(Duration::ZERO)), Ok(4));
        assert_eq!(store.set("s", b"x", None), Ok(()));
        assert_eq!(store.increment("s", 1, None), Err(Refused::NotANumber));
    }
}
