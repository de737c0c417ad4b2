//! `clock`: the time of day, and a monotonic clock.
//!
//! This module does not know: deadlines.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wasmtime::Result;

use crate::bindings::witgate::gateway::clock;
use crate::filter::CallState;

impl clock::Host for CallState {
    fn now(&mut self) -> Result<clock::Datetime> {
        // A system clock before 1970 reads as 1970: a guest cannot handle that error.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(clock::Datetime { seconds: since.as_secs() as u32, nanoseconds: since.subsec_nanos() })
    }

    fn ticks(&mut self) -> Result<u32> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Ok(START.elapsed().as_micros() as u32)
    }
}
