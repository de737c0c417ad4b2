//! How many calls of other services a call makes, and how long it waits for them. That time does
//! not count against its timeout.
//!
//! The call's fiber notes when a wait begins and ends. The timer around the call, which is outside
//! of the store, asks how long the waits have been. Only filters that may call services have it, so
//! others pay for one branch. This module does not know: what a call waits for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// No wait is running.
const NONE: u64 = u64::MAX;

/// The waits of one call. One thread runs the call, so that relaxed operations suffice.
pub(crate) struct WaitClock {
    began: Instant,
    /// The time of the waits that have ended, in microseconds.
    ended_us: AtomicU64,
    /// When the running wait began, in microseconds after `began`.
    since_us: AtomicU64,
    /// The calls of other services.
    calls: AtomicU32,
}

/// A wait. It ends when this is dropped.
pub(crate) struct Wait<'a>(&'a WaitClock);

impl WaitClock {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            ended_us: AtomicU64::new(0),
            since_us: AtomicU64::new(NONE),
            calls: AtomicU32::new(0),
        }
    }

    /// Counts a call, of which there may be `max`. The error is the number of calls with this one.
    pub(crate) fn count_call(&self, max: u32) -> Result<(), u32> {
        let before = self.calls.load(Relaxed);
        if before >= max {
            return Err(before.saturating_add(1));
        }
        self.calls.store(before + 1, Relaxed);
        Ok(())
    }

    /// Begins a wait.
    pub(crate) fn begin(&self) -> Wait<'_> {
        self.since_us.store(self.now_us(), Relaxed);
        Wait(self)
    }

    /// Whether a wait is running.
    pub(crate) fn is_waiting(&self) -> bool {
        self.since_us.load(Relaxed) != NONE
    }

    /// The time of all waits until now.
    pub(crate) fn total(&self) -> Duration {
        let running = match self.since_us.load(Relaxed) {
            NONE => 0,
            since => self.now_us().saturating_sub(since),
        };
        Duration::from_micros(self.ended_us.load(Relaxed) + running)
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let total = self.0.total();
        self.0.ended_us.store(total.as_micros() as u64, Relaxed);
        self.0.since_us.store(NONE, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_and_work_between_them_does_not_count() {
        let clock = WaitClock::new();
        assert_eq!((clock.total(), clock.is_waiting()), (Duration::ZERO, false));
        let wait = clock.begin();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.is_waiting() && clock.total() >= Duration::from_millis(2));
        drop(wait);
        let first = clock.total();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.total(), first);
        drop(clock.begin());
        assert!(clock.total() >= first);
    }
}
