//! The clock of all calls: one tick of the engine's epoch each 4 ms while there is a call, each millisecond while one needs it.
//!
//! A call gives way to other connections at every tick but its first, and looks whether its time is up. Waking a thread a thousand times a second costs 4% of a busy core, and calls that take microseconds
//! never need it: so a call that meets a tick, having run for longer than one, makes the clock hurry for a while, as does one with a deadline that slow ticks would miss. Where nobody calls a filter
//! it rests. Whoever calls says so before it looks whether the clock rests, and the clock says that it rests before it looks for calls: so one of them sees the
//! other. Must not know: filters, what a tick does.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// From tick to tick while calls are short.
const SLOW_TICK: Duration = Duration::from_millis(4);
/// The same after a call asked for it.
const FAST_TICK: Duration = Duration::from_millis(1);
/// So many ticks the clock then hurries.
const HURRIED: u32 = 100;
/// A deadline below this is met to a millisecond or two only by a clock that hurries: the first tick that a call looks at is its second.
pub(super) const PRECISE_BELOW: Duration = SLOW_TICK.saturating_mul(2);
/// Ticks without a call after which the clock rests: traffic has gaps.
const QUIET: u32 = 25;

/// Calls that are under way, and whether their clock rests.
#[derive(Debug, Default)]
pub(super) struct Calls {
    count: AtomicUsize,
    rests: AtomicBool,
    /// Ticks that it still hurries for.
    hurried: AtomicU32,
    is_over: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Calls {
    /// One more, until what it returns is dropped.
    pub(super) fn enter(&self) -> UnderWay<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.rests.load(Ordering::SeqCst) {
            self.wake();
        }
        UnderWay(self)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// There is a call that a millisecond means something to.
    pub(super) fn request_fast_ticks(&self) {
        // The slow tick that it waits for now would come late.
        if self.hurried.swap(HURRIED, Ordering::Relaxed) == 0 {
            self.unpark();
        }
    }

    /// How long it is to the next tick.
    fn pace(&self) -> Duration {
        let less = |left: u32| left.checked_sub(1);
        if self.hurried.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() { FAST_TICK } else { SLOW_TICK }
    }

    fn wake(&self) {
        self.rests.store(false, Ordering::SeqCst);
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Until there is a call, or the clock is over.
    fn rest(&self) {
        self.rests.store(true, Ordering::SeqCst);
        while self.rests.load(Ordering::SeqCst)
            && self.count.load(Ordering::SeqCst) == 0
            && !self.is_over.load(Ordering::SeqCst)
        {
            std::thread::park();
        }
        self.rests.store(false, Ordering::SeqCst);
    }
}

/// A call, or what else runs code of a filter.
pub(super) struct UnderWay<'a>(&'a Calls);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The thread that ticks; over when this is dropped.
#[derive(Debug)]
pub(super) struct Clock(Arc<Calls>);

impl Clock {
    /// Calls `tick` at this pace while there are calls, until it says that there is nothing to tick for.
    pub(super) fn start(tick: impl Fn() -> bool + Send + 'static) -> std::io::Result<Self> {
        let calls = Arc::new(Calls::default());
        let own = calls.clone();
        let thread = std::thread::Builder::new().name("epoch".into()).spawn(move || {
            let mut quiet = 0;
            while !own.is_over.load(Ordering::SeqCst) {
                std::thread::park_timeout(own.pace());
                if !tick() {
                    return;
                }
                quiet = if own.count() == 0 { quiet + 1 } else { 0 };
                if quiet == QUIET {
                    own.rest();
                    quiet = 0;
                }
            }
        })?;
        // Until it is set nobody can be woken, but nobody rests before so many ticks, and a rest looks for calls first.
        let _ = calls.thread.set(thread.thread().clone());
        Ok(Self(calls))
    }

    pub(super) fn calls(&self) -> &Arc<Calls> {
        &self.0
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        self.0.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    use super::*;

    /// Waits until `is_so`; false where that takes too long.
    fn soon(is_so: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        while !is_so() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(FAST_TICK);
        }
        is_so()
    }

    #[test]
    fn it_rests_while_there_is_no_call_and_ticks_while_there_is_one() -> std::io::Result<()> {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = ticks.clone();
        let clock = Clock::start(move || counted.fetch_add(1, Ordering::Relaxed) < u64::MAX)?;
        let calls = clock.calls().clone();
        for _ in 0..3 {
            assert!(soon(|| calls.rests.load(Ordering::SeqCst)), "it never rests");
            let before = ticks.load(Ordering::Relaxed);
            let call = calls.enter();
            assert!(soon(|| ticks.load(Ordering::Relaxed) > before + u64::from(QUIET) * 2), "it does not tick");
            assert!(!calls.rests.load(Ordering::SeqCst), "it rests beside a call");
            drop(call);
        }
        assert!(soon(|| calls.rests.load(Ordering::SeqCst)));
        drop(clock);
        assert!(soon(|| Arc::strong_count(&calls) == 1), "the thread stays");
        Ok(())
    }

    #[test]
    fn it_hurries_for_so_many_ticks_after_it_was_asked() {
        let calls = Calls::default();
        assert_eq!(calls.pace(), SLOW_TICK);
        calls.request_fast_ticks();
        let hurried = (0..).take_while(|_| calls.pace() == FAST_TICK).count();
        assert_eq!((hurried as u32, calls.pace()), (HURRIED, SLOW_TICK));
    }
}
