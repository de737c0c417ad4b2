//! `clock`: the time of day, and a monotonic clock.
//!
//! This module does not know: deadlines.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wasmtime::Result;

use crate::bindings::witgate::gateway::clock;
use crate::filter::CallState;
use crate::replay::Time;

impl clock::Host for CallState {
    fn now(&mut self) -> Result<clock::Datetime> {
        if let Some((seconds, nanoseconds)) = self.replayed().and_then(|replay| replay.day()) {
            return Ok(clock::Datetime { seconds, nanoseconds });
        }
        // A system clock before 1970 reads as 1970: a guest cannot handle that error.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = (since.as_secs() as u32, since.subsec_nanos());
        if let Some(record) = self.recorded() {
            record.record_time(Time::Day(seconds, nanoseconds));
        }
        Ok(clock::Datetime { seconds, nanoseconds })
    }

    fn ticks(&mut self) -> Result<u32> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        if let Some(ticks) = self.replayed().and_then(|replay| replay.ticks()) {
            return Ok(ticks);
        }
        let ticks = START.elapsed().as_micros() as u32;
        if let Some(record) = self.recorded() {
            record.record_time(Time::Ticks(ticks));
        }
        Ok(ticks)
    }
}
