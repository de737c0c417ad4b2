//! The clock of all calls: it advances the engine's epoch while there are calls.
//!
//! A call yields to other connections at every tick but its first, and checks its deadline there.
//! Gain: a slow tick of 4 ms instead of 1 ms saves 4% of a busy core, because most calls take
//! microseconds and need no tick. Price: two rates. A call that meets a tick has run for longer
//! than one, so it requests fast ticks for a while; a call with a deadline below
//! [`PRECISE_BELOW`] requests them at once.
//!
//! The clock rests while nobody calls a filter. A caller registers its call before it checks
//! whether the clock rests, and the clock announces its rest before it checks for calls, so at
//! least one of the two sees the other.
//! This module does not know: filters, what a tick does.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// The time between ticks while calls are short.
const SLOW_TICK: Duration = Duration::from_millis(4);
/// The time between ticks after a call requested fast ones.
const FAST_TICK: Duration = Duration::from_millis(1);
/// The number of fast ticks that one request causes.
const FAST_TICKS: u32 = 100;
/// A call meets a deadline below this within two milliseconds only if ticks are fast: the first
/// tick at which a call checks its deadline is its second.
pub(crate) const PRECISE_BELOW: Duration = SLOW_TICK.saturating_mul(2);
/// Ticks without a call after which the clock rests: traffic has gaps.
const IDLE_TICKS_MAX: u32 = 25;

/// The thread that ticks. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Clock(Arc<ActiveCalls>);

impl Clock {
    /// Calls `tick` at the current rate while there are calls, until `tick` returns false.
    pub(crate) fn start(tick: impl Fn() -> bool + Send + 'static) -> std::io::Result<Self> {
        let calls = Arc::new(ActiveCalls::default());
        let of_thread = calls.clone();
        let thread =
            std::thread::Builder::new().name("epoch".into()).spawn(move || of_thread.tick_while_active(tick))?;
        // Until this is set, nobody can wake the thread. That is safe: the thread does not rest
        // before IDLE_TICKS_MAX ticks, and it checks for calls before it parks.
        let _ = calls.thread.set(thread.thread().clone());
        Ok(Self(calls))
    }

    pub(crate) fn calls(&self) -> &Arc<ActiveCalls> {
        &self.0
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.is_stopped.store(true, Ordering::SeqCst);
        self.0.wake();
    }
}

/// The calls that are running, and the state of their clock.
#[derive(Debug, Default)]
pub(crate) struct ActiveCalls {
    count: AtomicUsize,
    is_resting: AtomicBool,
    /// The number of fast ticks that are left.
    fast_ticks: AtomicU32,
    is_stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

impl ActiveCalls {
    /// Registers a call until the returned guard is dropped.
    #[inline]
    pub(crate) fn enter(&self) -> ActiveCall<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.is_resting.load(Ordering::SeqCst) {
            self.wake();
        }
        ActiveCall(self)
    }

    /// The number of calls that are running.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes the next [`FAST_TICKS`] ticks fast ones.
    pub(crate) fn request_fast_ticks(&self) {
        // If the thread waits for a slow tick, wake it: that tick would come late.
        if self.fast_ticks.swap(FAST_TICKS, Ordering::Relaxed) == 0 {
            self.unpark();
        }
    }

    fn tick_while_active(&self, tick: impl Fn() -> bool) {
        let mut idle_ticks = 0;
        while !self.is_stopped.load(Ordering::SeqCst) {
            std::thread::park_timeout(self.next_tick());
            if !tick() {
                return;
            }
            idle_ticks = if self.count() == 0 { idle_ticks + 1 } else { 0 };
            if idle_ticks == IDLE_TICKS_MAX {
                self.rest();
                idle_ticks = 0;
            }
        }
    }

    /// The time until the next tick. Uses up one fast tick.
    fn next_tick(&self) -> Duration {
        let decrement = |left: u32| left.checked_sub(1);
        let is_fast = self.fast_ticks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement).is_ok();
        if is_fast { FAST_TICK } else { SLOW_TICK }
    }

    fn wake(&self) {
        self.is_resting.store(false, Ordering::SeqCst);
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Blocks the clock's thread until there is a call or the clock is dropped.
    fn rest(&self) {
        self.is_resting.store(true, Ordering::SeqCst);
        while self.is_resting.load(Ordering::SeqCst)
            && self.count.load(Ordering::SeqCst) == 0
            && !self.is_stopped.load(Ordering::SeqCst)
        {
            std::thread::park();
        }
        self.is_resting.store(false, Ordering::SeqCst);
    }
}

/// A call, or anything else that runs code of a filter.
pub(crate) struct ActiveCall<'a>(&'a ActiveCalls);

impl Drop for ActiveCall<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    use super::*;

    /// Waits until the condition holds. Returns false if that takes more than 20 s.
    fn eventually(condition: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        while !condition() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(FAST_TICK);
        }
        condition()
    }

    #[test]
    fn it_rests_while_there_is_no_call_and_ticks_while_there_is_one() -> std::io::Result<()> {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = ticks.clone();
        let clock = Clock::start(move || counted.fetch_add(1, Ordering::Relaxed) < u64::MAX)?;
        let calls = clock.calls().clone();
        for _ in 0..3 {
            assert!(eventually(|| calls.is_resting.load(Ordering::SeqCst)), "the clock does not rest without calls");
            let before = ticks.load(Ordering::Relaxed);
            let call = calls.enter();
            let expected = before + u64::from(IDLE_TICKS_MAX) * 2;
            assert!(eventually(|| ticks.load(Ordering::Relaxed) > expected), "the clock does not tick during a call");
            assert!(!calls.is_resting.load(Ordering::SeqCst), "the clock rests during a call");
            drop(call);
        }
        assert!(eventually(|| calls.is_resting.load(Ordering::SeqCst)));
        drop(clock);
        assert!(eventually(|| Arc::strong_count(&calls) == 1), "the thread does not end");
        Ok(())
    }

    #[test]
    fn a_request_for_fast_ticks_lasts_for_its_number_of_ticks() {
        let calls = ActiveCalls::default();
        assert_eq!(calls.next_tick(), SLOW_TICK);
        calls.request_fast_ticks();
        let fast = (0..).take_while(|_| calls.next_tick() == FAST_TICK).count();
        assert_eq!((fast as u32, calls.next_tick()), (FAST_TICKS, SLOW_TICK));
    }
}
