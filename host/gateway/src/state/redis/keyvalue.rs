//! A filter's key-value store on a server.
//!
//! The keys of a namespace begin with `witgate:f:NAMESPACE:`, and a namespace has no colon, so no
//! key of one filter is a key of another. A stored value begins with a tag: `v` for the value of a
//! filter, `c` for a counter. Operations that change something are scripts, which the server runs
//! as one step. This module does not know: connections, who asks.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::Script;
use redis::aio::MultiplexedConnection;

use super::client::RedisClient;
use witgate_config::OnStoreFailure;
use witgate_runtime::keyvalue::{KeyValue, KeyValueError, Outcome, VALUE_BYTES_MAX};
use witgate_runtime::memory_store::MemoryStore;

static SET: LazyLock<Script> = LazyLock::new(|| script(include_str!("scripts/set.lua")));
static INCREMENT: LazyLock<Script> = LazyLock::new(|| script(include_str!("scripts/increment.lua")));
static SWAP: LazyLock<Script> = LazyLock::new(|| script(include_str!("scripts/swap.lua")));
static DELETE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/delete.lua")));

fn script(text: &str) -> Script {
    Script::new(&format!("{}{text}", include_str!("scripts/room.lua")))
}

/// The entries of one namespace.
pub(in crate::state) struct RedisKeyValue {
    pub(in crate::state) client: Arc<RedisClient>,
    pub(in crate::state) namespace: Arc<str>,
    pub(in crate::state) keys_max: usize,
    /// Takes the place of the server with `on_failure: local`.
    pub(in crate::state) local: Arc<MemoryStore>,
}

/// What a script that changes an entry returned.
enum Changed {
    Done(i64),
    Refused(KeyValueError),
    OtherValue,
}

impl RedisKeyValue {
    fn key(&self, key: &str) -> String {
        format!("witgate:f:{}:k:{key}", self.tag())
    }

    fn index(&self) -> String {
        format!("witgate:f:{}:i", self.tag())
    }

    /// The namespace. In a cluster it is a hash tag, because the scripts use the index with the
    /// keys, and all keys of a script have to be in one slot.
    fn tag(&self) -> Cow<'_, str> {
        if self.client.settings.redis.is_cluster {
            format!("{{{}}}", self.namespace).into()
        } else {
            Cow::Borrowed(&self.namespace)
        }
    }

    /// Runs a script that changes one entry.
    async fn change(
        &self,
        operation: &'static str,
        script: &'static Script,
        key: &str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Changed, String> {
        let (key, index) = (self.key(key), self.index());
        let own = index.clone();
        let ask = |mut connection: MultiplexedConnection| async move {
            let mut call = script.key(key);
            call.key(index);
            for argument in arguments {
                call.arg(argument);
            }
            call.arg(self.keys_max);
            call.invoke_async::<(i64, i64)>(&mut connection).await
        };
        match self.client.run(operation, &own, ask).await? {
            (0, number) => Ok(Changed::Done(number)),
            (1, _) => Ok(Changed::Refused(KeyValueError::Full)),
            (2, _) => Ok(Changed::Refused(KeyValueError::NotANumber)),
            (3, _) => Ok(Changed::OtherValue),
            _ => Err(format!("the store {} sent a reply that no script returns", self.client.name)),
        }
    }

    /// What replaces a failed operation, as the operator says.
    async fn replace<'a, T>(
        &self,
        why: String,
        if_open: T,
        local: impl FnOnce() -> Outcome<'a, T>,
    ) -> Result<T, KeyValueError> {
        match self.client.settings.on_failure {
            OnStoreFailure::Error => Err(KeyValueError::Unavailable(why)),
            OnStoreFailure::Local => local().wait().await,
            OnStoreFailure::Open => Ok(if_open),
        }
    }

    fn invalid(&self) -> KeyValueError {
        KeyValueError::Unavailable(format!("the store {} has a value that no filter wrote", self.client.name))
    }

    /// The value without its tag.
    fn decode(&self, stored: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, KeyValueError> {
        let Some(mut stored) = stored else { return Ok(None) };
        if !matches!(stored.first(), Some(b'v' | b'c')) || stored.len() > VALUE_BYTES_MAX + 1 {
            return Err(self.invalid());
        }
        stored.remove(0);
        Ok(Some(stored))
    }
}

impl KeyValue for RedisKeyValue {
    fn get<'a>(&'a self, key: &'a str) -> Outcome<'a, Option<Vec<u8>>> {
        Outcome::Pending(Box::pin(async move {
            let stored = self.key(key);
            let ask = |mut connection: MultiplexedConnection| async move {
                redis::cmd("GET").arg(stored).query_async::<Option<Vec<u8>>>(&mut connection).await
            };
            match self.client.run("get", &self.index(), ask).await {
                Ok(found) => self.decode(found),
                Err(why) => self.replace(why, None, || self.local.get(key)).await,
            }
        }))
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Outcome<'a, Vec<Option<Vec<u8>>>> {
        if keys.is_empty() {
            return Outcome::Ready(Ok(vec![]));
        }
        Outcome::Pending(Box::pin(async move {
            let stored: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
            let ask = |mut connection: MultiplexedConnection| async move {
                redis::cmd("MGET").arg(stored).query_async::<Vec<Option<Vec<u8>>>>(&mut connection).await
            };
            match self.client.run("get-many", &self.index(), ask).await {
                Ok(found) if found.len() == keys.len() => found.into_iter().map(|one| self.decode(one)).collect(),
                Ok(_) => Err(self.invalid()),
                Err(why) => self.replace(why, vec![None; keys.len()], || self.local.get_many(keys)).await,
            }
        }))
    }

    fn set<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Option<Duration>) -> Outcome<'a, ()> {
        Outcome::Pending(Box::pin(async move {
            match self.change("set", &SET, key, vec![tagged(value), milliseconds(ttl)]).await {
                Ok(Changed::Done(_)) => Ok(()),
                Ok(Changed::Refused(error)) => Err(error),
                Ok(Changed::OtherValue) => Err(self.invalid()),
                Err(why) => self.replace(why, (), || self.local.set(key, value, ttl)).await,
            }
        }))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Outcome<'a, bool> {
        Outcome::Pending(Box::pin(async move {
            let (stored, index) = (self.key(key), self.index());
            let ask = |mut connection: MultiplexedConnection| async move {
                DELETE.key(stored).key(index).invoke_async::<i64>(&mut connection).await
            };
            match self.client.run("delete", &self.index(), ask).await {
                Ok(removed) => Ok(removed > 0),
                Err(why) => self.replace(why, false, || self.local.delete(key)).await,
            }
        }))
    }

    fn increment<'a>(&'a self, key: &'a str, delta: i32, ttl: Option<Duration>) -> Outcome<'a, i32> {
        Outcome::Pending(Box::pin(async move {
            let arguments = vec![delta.to_string().into_bytes(), milliseconds(ttl)];
            match self.change("increment", &INCREMENT, key, arguments).await {
                Ok(Changed::Done(sum)) => i32::try_from(sum).map_err(|_| self.invalid()),
                Ok(Changed::Refused(error)) => Err(error),
                Ok(Changed::OtherValue) => Err(self.invalid()),
                Err(why) => self.replace(why, delta, || self.local.increment(key, delta, ttl)).await,
            }
        }))
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        value: &'a [u8],
        ttl: Option<Duration>,
    ) -> Outcome<'a, bool> {
        Outcome::Pending(Box::pin(async move {
            let is_expected = if expected.is_some() { b"1".to_vec() } else { b"0".to_vec() };
            let before = expected.unwrap_or_default().to_vec();
            let arguments = vec![is_expected, before, tagged(value), milliseconds(ttl)];
            match self.change("compare-and-swap", &SWAP, key, arguments).await {
                Ok(Changed::Done(_)) => Ok(true),
                Ok(Changed::OtherValue) => Ok(false),
                Ok(Changed::Refused(error)) => Err(error),
                Err(why) => {
                    let local = || self.local.compare_and_swap(key, expected, value, ttl);
                    self.replace(why, expected.is_none(), local).await
                }
            }
        }))
    }
}

fn tagged(value: &[u8]) -> Vec<u8> {
    [b"v", value].concat()
}

/// 0 means that the entry does not expire. A time below one millisecond counts as one.
fn milliseconds(ttl: Option<Duration>) -> Vec<u8> {
    ttl.map_or(0, |ttl| ttl.as_millis().max(1)).to_string().into_bytes()
}
