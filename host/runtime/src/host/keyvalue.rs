//! `keyvalue`: checks the bounds of the contract and asks the filter's store.
//!
//! The functions are asynchronous: while a store waits, the call's fiber is suspended and the
//! thread serves other connections. Price: wasmtime allocates one future per function call.
//! A call whose reads are replayed writes to no store.
//! This module does not know: which store the gateway provides.

use std::time::Duration;

use wasmtime::Result;

use crate::bindings::witgate::gateway::keyvalue;
use crate::filter::CallState;
use crate::keyvalue::{KeyValueError, VALUE_BYTES_MAX, check_key, check_keys, check_value};

impl keyvalue::Host for CallState {
    async fn get(&mut self, key: String) -> Result<Result<Option<Vec<u8>>, keyvalue::Error>> {
        if let Err(error) = check_key(&key) {
            return Ok(self.refuse(error));
        }
        let value = match self.replay_and_store() {
            (Some(replay), store) => replay.get(&**store, &key).await,
            (None, store) => store.get(&key).wait().await,
        };
        if let (Some(record), Ok(value)) = (self.recorded(), &value) {
            record.record_value(&key, value.as_deref());
        }
        Ok(self.keyvalue_calls.count(value).map_err(Into::into))
    }

    async fn get_many(&mut self, keys: Vec<String>) -> Result<Result<Vec<Option<Vec<u8>>>, keyvalue::Error>> {
        if let Err(error) = check_keys(&keys) {
            return Ok(self.refuse(error));
        }
        let values = match self.replay_and_store() {
            (Some(replay), store) => {
                let mut values = Vec::with_capacity(keys.len());
                for key in &keys {
                    match replay.get(&**store, key).await {
                        Ok(value) => values.push(value),
                        Err(error) => return Ok(self.refuse(error)),
                    }
                }
                Ok(values)
            }
            (None, store) => store.get_many(&keys).wait().await,
        };
        if let (Some(record), Ok(values)) = (self.recorded(), &values) {
            keys.iter().zip(values).for_each(|(key, value)| record.record_value(key, value.as_deref()));
        }
        Ok(self.keyvalue_calls.count(values).map_err(Into::into))
    }

    async fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: u32) -> Result<Result<(), keyvalue::Error>> {
        if let Err(error) = check_key(&key).and_then(|()| check_value(&value)) {
            return Ok(self.refuse(error));
        }
        let set = match self.replay_and_store() {
            (Some(replay), _) => replay.write(&key, Some(&value)),
            (None, store) => store.set(&key, &value, ttl(ttl_ms)).wait().await,
        };
        if let Some(record) = self.recorded() {
            record.record_write(&key);
        }
        Ok(self.keyvalue_calls.count(set).map_err(Into::into))
    }

    async fn delete(&mut self, key: String) -> Result<Result<bool, keyvalue::Error>> {
        if let Err(error) = check_key(&key) {
            return Ok(self.refuse(error));
        }
        let deleted = match self.replay_and_store() {
            (Some(replay), store) => match replay.get(&**store, &key).await {
                Ok(value) => replay.write(&key, None).map(|()| value.is_some()),
                Err(error) => Err(error),
            },
            (None, store) => store.delete(&key).wait().await,
        };
        if let Some(record) = self.recorded() {
            record.record_write(&key);
        }
        Ok(self.keyvalue_calls.count(deleted).map_err(Into::into))
    }

    async fn increment(&mut self, key: String, delta: i32, ttl_ms: u32) -> Result<Result<i32, keyvalue::Error>> {
        if let Err(error) = check_key(&key) {
            return Ok(self.refuse(error));
        }
        let sum = match self.replay_and_store() {
            (Some(replay), store) => replay.increment(&**store, &key, delta).await,
            (None, store) => store.increment(&key, delta, ttl(ttl_ms)).wait().await,
        };
        if let (Some(record), Ok(sum)) = (self.recorded(), &sum) {
            record.record_sum(&key, *sum, delta);
        }
        Ok(self.keyvalue_calls.count(sum).map_err(Into::into))
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: u32,
    ) -> Result<Result<bool, keyvalue::Error>> {
        if let Err(error) = check_key(&key).and_then(|()| check_value(&value)) {
            return Ok(self.refuse(error));
        }
        // No stored value equals a longer one.
        let expected = expected.as_deref().map(|bytes| &bytes[..bytes.len().min(VALUE_BYTES_MAX + 1)]);
        let swapped = match self.replay_and_store() {
            (Some(replay), store) => match replay.get(&**store, &key).await {
                Ok(current) if current.as_deref() == expected => replay.write(&key, Some(&value)).map(|()| true),
                Ok(_) => Ok(false),
                Err(error) => Err(error),
            },
            (None, store) => store.compare_and_swap(&key, expected, &value, ttl(ttl_ms)).wait().await,
        };
        if let (Some(record), Ok(true)) = (self.recorded(), &swapped) {
            record.record_value(&key, expected);
        }
        Ok(self.keyvalue_calls.count(swapped).map_err(Into::into))
    }
}

impl CallState {
    /// The result of a call that does not reach the store.
    fn refuse<T>(&mut self, error: KeyValueError) -> Result<T, keyvalue::Error> {
        self.keyvalue_calls.count(Err(error)).map_err(Into::into)
    }
}

impl From<KeyValueError> for keyvalue::Error {
    fn from(error: KeyValueError) -> Self {
        match error {
            KeyValueError::TooLarge => Self::TooLarge,
            KeyValueError::Full => Self::Full,
            KeyValueError::NotANumber => Self::NotANumber,
            KeyValueError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

/// 0 means that the entry does not expire.
fn ttl(milliseconds: u32) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds.into()))
}
