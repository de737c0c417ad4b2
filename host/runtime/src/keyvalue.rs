//! The key-value store that the gateway provides to filters, and the bounds of its contract.
//!
//! The host functions check the bounds (`host/keyvalue.rs`), so an implementation does not. This
//! module does not know: WIT, where a store keeps its entries.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// The longest key in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 256;
/// The largest value in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// The most keys of one `get_many`.
pub const KEYS_PER_CALL_MAX: usize = 64;

/// The store of one filter. All its instances, on all threads, share it.
///
/// Each operation is atomic and changes nothing if it fails. A time to live of `None` means that
/// the entry does not expire.
pub trait KeyValue: Send + Sync {
    /// The value of a key, a counter as decimal text. `None` if it is absent or has expired.
    fn get<'a>(&'a self, key: &'a str) -> Outcome<'a, Option<Vec<u8>>>;

    /// The values of keys, in their order. At most [`KEYS_PER_CALL_MAX`].
    fn get_many<'a>(&'a self, keys: &'a [String]) -> Outcome<'a, Vec<Option<Vec<u8>>>>;

    /// Sets a key, and replaces its value and expiry.
    fn set<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Option<Duration>) -> Outcome<'a, ()>;

    /// Removes a key. True if it was there and had not expired.
    fn delete<'a>(&'a self, key: &'a str) -> Outcome<'a, bool>;

    /// Adds to a counter and returns the sum. `ttl` applies only to a counter that starts here.
    fn increment<'a>(&'a self, key: &'a str, delta: i32, ttl: Option<Duration>) -> Outcome<'a, i32>;

    /// Sets a key if its value is `expected`, where `None` means that it is absent. True if it did.
    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        value: &'a [u8],
        ttl: Option<Duration>,
    ) -> Outcome<'a, bool>;
}

/// What an operation returns: its result, or a future of it. `E` says why it failed.
///
/// Gain: a store in memory allocates no future and never suspends the call. Price: two cases,
/// which [`Outcome::wait`] hides from callers.
pub enum Outcome<'a, T, E = KeyValueError> {
    /// The operation is complete.
    Ready(Result<T, E>),
    /// The operation waits for something, such as a remote store.
    Pending(Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>),
}

impl<T, E> Outcome<'_, T, E> {
    /// Waits for the result. Returns at once if there is one.
    #[inline]
    pub async fn wait(self) -> Result<T, E> {
        match self {
            Self::Ready(result) => result,
            Self::Pending(future) => future.await,
        }
    }
}

/// Why an operation failed: the cases of `error` in the WIT interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyValueError {
    /// The key or the value is outside the bounds of this module.
    TooLarge,
    /// The store has no room, and no entry in it has expired.
    Full,
    /// The value is not a counter, or the sum does not fit into an `i32`.
    NotANumber,
    /// The store cannot be reached; the text says why.
    Unavailable(String),
}

impl fmt::Display for KeyValueError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => {
                write!(formatter, "a key has 1 to {KEY_BYTES_MAX} bytes, a value at most {VALUE_BYTES_MAX}")
            }
            Self::Full => formatter.write_str("the store has no room for the entry"),
            Self::NotANumber => formatter.write_str("the value is not a counter, or the sum is too large"),
            Self::Unavailable(why) => write!(formatter, "the store cannot be reached: {why}"),
        }
    }
}

impl std::error::Error for KeyValueError {}

/// Checks the length of a key: 1 to [`KEY_BYTES_MAX`] bytes.
pub(crate) fn check_key(key: &str) -> Result<(), KeyValueError> {
    if (1..=KEY_BYTES_MAX).contains(&key.len()) { Ok(()) } else { Err(KeyValueError::TooLarge) }
}

/// Checks a list of keys: at most [`KEYS_PER_CALL_MAX`], each of a valid length.
pub(crate) fn check_keys(keys: &[String]) -> Result<(), KeyValueError> {
    if keys.len() > KEYS_PER_CALL_MAX {
        return Err(KeyValueError::TooLarge);
    }
    keys.iter().try_for_each(|key| check_key(key))
}

/// Checks the length of a value: at most [`VALUE_BYTES_MAX`] bytes.
pub(crate) fn check_value(value: &[u8]) -> Result<(), KeyValueError> {
    if value.len() <= VALUE_BYTES_MAX { Ok(()) } else { Err(KeyValueError::TooLarge) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_bounds() {
        assert_eq!(check_key(""), Err(KeyValueError::TooLarge));
        assert_eq!(check_key(&"k".repeat(KEY_BYTES_MAX)), Ok(()));
        assert_eq!(check_key(&"k".repeat(KEY_BYTES_MAX + 1)), Err(KeyValueError::TooLarge));
        let key = || "k".to_owned();
        assert_eq!(check_keys(&[]), Ok(()));
        assert_eq!(check_keys(&vec![key(); KEYS_PER_CALL_MAX]), Ok(()));
        assert_eq!(check_keys(&vec![key(); KEYS_PER_CALL_MAX + 1]), Err(KeyValueError::TooLarge));
        assert_eq!(check_keys(&[key(), String::new()]), Err(KeyValueError::TooLarge));
        assert_eq!(check_value(&[]), Ok(()));
        assert_eq!(check_value(&[0; VALUE_BYTES_MAX]), Ok(()));
        assert_eq!(check_value(&[0; VALUE_BYTES_MAX + 1]), Err(KeyValueError::TooLarge));
    }
}
