//! What a call read from outside of its exchange, so that another version can be called with the
//! same input and no effect.
//!
//! A live call records the values of keys, decisions of the limiter, times, random numbers and
//! responses of other services that it got. The second call gets the same ones, in the same order.
//! A value that was not recorded comes from the live store, which is only read; a request to a
//! service that was not recorded is not sent. What the second call writes is kept here and thrown
//! away with the call. Everything is bounded: a call that reads more records no more of it.
//! This module does not know: WIT, what is done with the second call's result.

use std::collections::{HashMap, VecDeque};

use crate::keyvalue::{KeyValue, KeyValueError};
use crate::limiter::{Decision, Policy, Usage};

/// Bytes of keys and values that one call records or writes.
const BYTES_MAX: usize = 1 << 20;
/// Entries of each kind.
const ENTRIES_MAX: usize = 1024;

/// The record of a call, and later the source of another one.
#[derive(Default)]
pub struct Replay {
    is_replaying: bool,
    /// The values before the live call changed them, then those that the second call wrote.
    values: HashMap<String, Option<Vec<u8>>>,
    /// Keys that the live call wrote before it read them: their earlier values are unknown.
    written: Vec<String>,
    decisions: HashMap<(String, u32, Policy), VecDeque<Decision>>,
    usages: HashMap<(String, Policy), Usage>,
    times: VecDeque<Time>,
    random: VecDeque<Vec<u8>>,
    responses: HashMap<Call, VecDeque<Response>>,
    bytes: usize,
    entries: usize,
}

/// A request to another service: method, URL and body.
type Call = (String, String, Vec<u8>);

/// The response of another service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What a clock said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// The time of day: seconds and nanoseconds.
    Day(u32, u32),
    /// The monotonic clock.
    Ticks(u32),
}

impl Replay {
    /// The record of a call becomes the source of the next one.
    #[must_use]
    pub fn into_source(mut self) -> Self {
        self.is_replaying = true;
        self
    }

    /// Whether the call must have no effect. If not, what it reads is recorded.
    pub(crate) fn is_replaying(&self) -> bool {
        self.is_replaying
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.entries += 1;
        self.bytes <= BYTES_MAX && self.entries <= ENTRIES_MAX
    }

    /// The entries that the live call found, with their keys.
    pub fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_deref()?)))
    }

    // What the live call read.

    /// The value of a key, before this call wrote it.
    pub(crate) fn record_value(&mut self, key: &str, value: Option<&[u8]>) {
        let is_known = self.values.contains_key(key) || self.written.iter().any(|written| written == key);
        if !is_known && self.has_room(key.len() + value.map_or(0, <[u8]>::len)) {
            self.values.insert(key.to_owned(), value.map(<[u8]>::to_vec));
        }
    }

    /// The call wrote a key. If it did not read it before, its earlier value is unknown.
    pub(crate) fn record_write(&mut self, key: &str) {
        if !self.values.contains_key(key) && self.has_room(key.len()) {
            self.written.push(key.to_owned());
        }
    }

    /// A counter became `sum` by adding `delta`.
    pub(crate) fn record_sum(&mut self, key: &str, sum: i32, delta: i32) {
        let before = i64::from(sum) - i64::from(delta);
        let value = (before != 0).then(|| before.to_string().into_bytes());
        self.record_value(key, value.as_deref());
    }

    pub(crate) fn record_decision(&mut self, key: &str, cost: u32, policy: &Policy, decision: Decision) {
        if self.has_room(key.len()) {
            self.decisions.entry((key.to_owned(), cost, *policy)).or_default().push_back(decision);
        }
    }

    pub(crate) fn record_time(&mut self, time: Time) {
        if self.has_room(0) {
            self.times.push_back(time);
        }
    }

    pub(crate) fn record_random(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.random.push_back(bytes.to_vec());
        }
    }

    /// Another service answered the call.
    pub(crate) fn record_response(&mut self, call: Call, response: Response) {
        let headers: usize = response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.has_room(call.1.len() + call.2.len() + headers + response.body.len()) {
            self.responses.entry(call).or_default().push_back(response);
        }
    }

    // What the second call gets.

    /// The response that the live call got to the same request. A call that was not recorded is
    /// not sent.
    pub(crate) fn response(&mut self, call: &Call) -> Option<Response> {
        self.responses.get_mut(call).and_then(VecDeque::pop_front)
    }

    /// The value of a key as the live call saw it, or as this call left it.
    pub(crate) async fn get(&self, store: &dyn KeyValue, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        match self.values.get(key) {
            Some(value) => Ok(value.clone()),
            None => store.get(key).wait().await,
        }
    }

    /// Keeps a value for this call. `None` removes it.
    pub(crate) fn write(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), KeyValueError> {
        if !self.has_room(key.len() + value.map_or(0, <[u8]>::len)) {
            return Err(KeyValueError::Full);
        }
        self.values.insert(key.to_owned(), value.map(<[u8]>::to_vec));
        Ok(())
    }

    /// Adds to a counter of this call.
    pub(crate) async fn increment(
        &mut self,
        store: &dyn KeyValue,
        key: &str,
        delta: i32,
    ) -> Result<i32, KeyValueError> {
        let sum = match self.get(store, key).await? {
            None => Some(delta),
            Some(bytes) => {
                let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<i32>().ok());
                number.and_then(|number| number.checked_add(delta))
            }
        };
        let sum = sum.ok_or(KeyValueError::NotANumber)?;
        self.write(key, Some(sum.to_string().as_bytes()))?;
        Ok(sum)
    }

    /// The decision that the live call got. Another request is decided as the first one of a key.
    pub(crate) fn decide(&mut self, key: &str, cost: u32, policy: &Policy) -> Decision {
        let recorded = self.decisions.get_mut(&(key.to_owned(), cost, *policy)).and_then(VecDeque::pop_front);
        if let Some(decision) = recorded {
            return decision;
        }
        if !self.has_room(key.len()) {
            return policy.decide(&mut Usage::default(), 0, cost);
        }
        policy.decide(self.usages.entry((key.to_owned(), *policy)).or_default(), 0, cost)
    }

    /// The next time of day that the live call read.
    pub(crate) fn day(&mut self) -> Option<(u32, u32)> {
        let at = self.times.iter().position(|time| matches!(time, Time::Day(..)))?;
        match self.times.remove(at)? {
            Time::Day(seconds, nanoseconds) => Some((seconds, nanoseconds)),
            Time::Ticks(_) => None,
        }
    }

    /// The next value of the monotonic clock that the live call read.
    pub(crate) fn ticks(&mut self) -> Option<u32> {
        let at = self.times.iter().position(|time| matches!(time, Time::Ticks(_)))?;
        match self.times.remove(at)? {
            Time::Ticks(ticks) => Some(ticks),
            Time::Day(..) => None,
        }
    }

    /// The next random bytes that the live call got, if it asked for as many.
    pub(crate) fn random(&mut self, length: usize) -> Option<Vec<u8>> {
        let at = self.random.iter().position(|bytes| bytes.len() == length)?;
        self.random.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keyvalue::Outcome;
    use crate::limiter::Algorithm;

    /// A store that has the value `live` at each key. A write is a bug.
    struct ReadOnly;

    impl KeyValue for ReadOnly {
        fn get<'a>(&'a self, _: &'a str) -> Outcome<'a, Option<Vec<u8>>> {
            Outcome::Ready(Ok(Some(b"live".to_vec())))
        }
        fn get_many<'a>(&'a self, _: &'a [String]) -> Outcome<'a, Vec<Option<Vec<u8>>>> {
            unreachable!()
        }
        fn set<'a>(&'a self, _: &'a str, _: &'a [u8], _: Option<Duration>) -> Outcome<'a, ()> {
            unreachable!()
        }
        fn delete<'a>(&'a self, _: &'a str) -> Outcome<'a, bool> {
            unreachable!()
        }
        fn increment<'a>(&'a self, _: &'a str, _: i32, _: Option<Duration>) -> Outcome<'a, i32> {
            unreachable!()
        }
        fn compare_and_swap<'a>(
            &'a self,
            _: &'a str,
            _: Option<&'a [u8]>,
            _: &'a [u8],
            _: Option<Duration>,
        ) -> Outcome<'a, bool> {
            unreachable!()
        }
    }

    fn run<F: Future>(future: F) -> anyhow::Result<F::Output> {
        Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(future))
    }

    #[test]
    fn the_second_call_sees_the_state_before_the_first_and_changes_nothing() -> anyhow::Result<()> {
        let mut record = Replay::default();
        record.record_value("seen", Some(b"before"));
        record.record_write("seen");
        record.record_value("seen", Some(b"after"));
        record.record_sum("counter", 5, 1);
        record.record_sum("new", 2, 2);
        record.record_write("unknown");
        record.record_value("unknown", Some(b"own"));
        let mut replay = record.into_source();
        assert_eq!(run(replay.get(&ReadOnly, "seen"))?, Ok(Some(b"before".to_vec())));
        assert_eq!(run(replay.get(&ReadOnly, "unknown"))?, Ok(Some(b"live".to_vec())));
        assert_eq!(run(replay.increment(&ReadOnly, "counter", 1))?, Ok(5), "as the live call got");
        assert_eq!(run(replay.increment(&ReadOnly, "counter", 1))?, Ok(6));
        assert_eq!(run(replay.increment(&ReadOnly, "new", 2))?, Ok(2));
        assert_eq!(run(replay.increment(&ReadOnly, "seen", 2))?, Err(KeyValueError::NotANumber));
        assert_eq!(replay.write("seen", None), Ok(()));
        assert_eq!(run(replay.get(&ReadOnly, "seen"))?, Ok(None));
        assert_eq!(replay.write("large", Some(&vec![0; BYTES_MAX])), Err(KeyValueError::Full));
        Ok(())
    }

    #[test]
    fn decisions_times_and_random_numbers_are_repeated() -> Result<(), String> {
        let policy = Policy::new(Algorithm::SlidingWindow, 5, 1000, 0)?;
        let refused = Decision { allowed: false, remaining: 0, reset_ms: 7, retry_after_ms: 7 };
        let mut record = Replay::default();
        record.record_decision("k", 1, &policy, refused);
        record.record_time(Time::Ticks(3));
        record.record_time(Time::Day(1, 2));
        record.record_random(&[1, 2, 3, 4]);
        let mut replay = record.into_source();
        assert_eq!(replay.decide("k", 1, &policy), refused);
        assert_eq!(replay.decide("k", 1, &policy).remaining, 4, "a request that the live call did not make");
        assert_eq!(replay.decide("k", 1, &policy).remaining, 3);
        assert_eq!((replay.day(), replay.day(), replay.ticks()), (Some((1, 2)), None, Some(3)));
        assert_eq!((replay.random(8), replay.random(4), replay.random(4)), (None, Some(vec![1, 2, 3, 4]), None));
        Ok(())
    }
}
