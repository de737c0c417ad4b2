//! What the standard library does not have in a filter: the time, random numbers, hash maps whose
//! order an attacker cannot know, and printing.
//!
//! Filters are compiled for a target without an operating system, because they must not import one.
//! There, `SystemTime::now` panics, `HashMap` has the same seed in every call, and `println!`
//! writes nothing. The crate `getrandom`, and with it `rand` and `uuid`, calls functions of this
//! module: componentize selects its backend `custom`.
//!
//! This module does not know: exchanges.

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, SystemTime};

use crate::host::{clock, random};

/// How many random bytes one call of the gateway returns.
const RANDOM_BYTES_MAX: usize = 64 << 10;

/// The time of the gateway's clock. `chrono::DateTime::<Utc>::from(now())` takes it.
pub fn now() -> SystemTime {
    let now = clock::now();
    SystemTime::UNIX_EPOCH + Duration::new(now.seconds.into(), now.nanoseconds)
}

/// Fills `bytes` with random numbers of the gateway, which are fit for keys.
pub fn fill_random(bytes: &mut [u8]) {
    for part in bytes.chunks_mut(RANDOM_BYTES_MAX) {
        part.copy_from_slice(&random::bytes(part.len() as u32));
    }
}

/// A hash map whose seed is random in each call: `HashMap::default()`.
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
/// The same for sets.
pub type HashSet<T> = std::collections::HashSet<T, RandomState>;

/// The seed of a [`HashMap`].
#[derive(Debug, Clone)]
pub struct RandomState(u64, u64);

impl Default for RandomState {
    fn default() -> Self {
        let number = || u64::from(random::number()) << 32 | u64::from(random::number());
        Self(number(), number())
    }
}

impl BuildHasher for RandomState {
    #[expect(deprecated, reason = "the hasher that takes its place cannot be given a seed")]
    type Hasher = std::hash::SipHasher;

    #[expect(deprecated, reason = "as above")]
    fn build_hasher(&self) -> Self::Hasher {
        std::hash::SipHasher::new_with_keys(self.0, self.1)
    }
}

const _: fn() = || {
    fn is_hasher<H: Hasher>() {}
    is_hasher::<<RandomState as BuildHasher>::Hasher>();
};

/// Writes a line to the gateway's log at level info, in place of the macro of the same name of the
/// standard library: `use witgate_filter::println;`.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => {
        $crate::log::info(&::std::format!($($arguments)*))
    };
}

/// The same at level warn, in place of `eprintln!`.
#[macro_export]
macro_rules! eprintln {
    ($($arguments:tt)*) => {
        $crate::log::warn(&::std::format!($($arguments)*))
    };
}

/// The functions that the crate `getrandom` calls.
#[cfg(target_arch = "wasm32")]
mod backends {
    /// Versions 0.3 and 0.4 with `--cfg getrandom_backend="custom"`. They declare the result as
    /// `Result<(), Error>`, whose success is 0.
    ///
    /// # Safety
    ///
    /// `target` is the beginning of `length` bytes that may be written.
    #[unsafe(no_mangle)]
    unsafe extern "Rust" fn __getrandom_v03_custom(target: *mut u8, length: usize) -> u32 {
        // SAFETY: the caller guarantees it, see above.
        unsafe { fill(target, length) };
        0
    }

    /// Version 0.2 with its feature `custom`.
    ///
    /// # Safety
    ///
    /// As above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __getrandom_custom(target: *mut u8, length: usize) -> u32 {
        // SAFETY: the caller guarantees it.
        unsafe { fill(target, length) };
        0
    }

    /// Fills memory that may be uninitialised.
    unsafe fn fill(target: *mut u8, length: usize) {
        // SAFETY: the caller guarantees that these bytes may be written; then they have a value.
        let bytes = unsafe {
            target.write_bytes(0, length);
            std::slice::from_raw_parts_mut(target, length)
        };
        super::fill_random(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_work_and_their_seeds_differ() {
        let mut map = HashMap::default();
        map.insert("a", 1);
        assert_eq!(map.get("a"), Some(&1));
        let hash = |state: &RandomState| state.hash_one("a");
        let state = RandomState::default();
        assert_eq!(hash(&state), hash(&state.clone()));
        assert_ne!(hash(&state), hash(&RandomState::default()));
    }

    #[test]
    fn random_bytes_fill_all() {
        let mut bytes = [0; 70_000];
        fill_random(&mut bytes);
        assert!(bytes.chunks(1000).all(|part| part.iter().any(|&byte| byte != 0)));
    }
}
