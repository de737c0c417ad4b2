//! The turns of long calls: on each thread only one of them runs at a time, and between two of
//! their time slices the thread serves everybody else.
//!
//! A call that meets a tick of the clock is long. Without turns, each of many long calls would run
//! a time slice before a neighbour is served: 400 endless loops held a neighbour for seconds. With
//! turns, a neighbour waits for one time slice, however many long calls there are. They wait in
//! the order in which they came, and their deadlines continue meanwhile.
//!
//! While a filter has long calls, its next call waits for a turn before it begins: otherwise the
//! first time slices of many new calls would add up. Calls of other filters begin at once.
//!
//! A turn ends with the poll in which the call ran, so a call that waits for the host (a remote
//! store) keeps none.
//!
//! Gain: fairness without a bound on the number of calls. Price: an atomic load for each call, and
//! a look at a thread-local variable for each poll. This module does not know: clocks, deadlines.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

thread_local! {
    /// Has one permit. It is fair: the turns go round.
    static TURN: OnceCell<Arc<Semaphore>> = const { OnceCell::new() };
    /// The permit of the call that is being polled.
    static HELD: Cell<Option<OwnedSemaphorePermit>> = const { Cell::new(None) };
}

/// The mark of a long call. While it exists, the filter's next calls wait for a turn.
pub(crate) struct LongCall(Arc<AtomicUsize>);

impl LongCall {
    /// A call became long. `of_filter` counts the long calls of its filter.
    pub(crate) fn new(of_filter: &Arc<AtomicUsize>) -> Self {
        of_filter.fetch_add(1, Ordering::Relaxed);
        Self(of_filter.clone())
    }
}

impl Drop for LongCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends the turn of the call, waits for its next turn, and serves everybody else before it.
pub(crate) async fn next() {
    end();
    let semaphore = TURN.with(|turn| turn.get_or_init(|| Arc::new(Semaphore::new(1))).clone());
    // The semaphore is never closed.
    let turn = semaphore.acquire_owned().await.ok();
    // After the wait: whoever gets the turn runs after everybody else. tokio's own yield and not
    // the future's waker: the I/O driver runs before the guest continues.
    tokio::task::yield_now().await;
    HELD.set(turn);
}

/// Ends the turn of the call that was polled, if it had one. To be called after each poll of a
/// call.
#[inline]
pub(crate) fn end() {
    drop(HELD.take());
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_neighbour_waits_for_one_time_slice() -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let long_calls = Arc::new(AtomicUsize::new(0));
        let slices = Rc::new(Cell::new(0));
        let local = tokio::task::LocalSet::new();
        for _ in 0..100 {
            let (mark, slices) = (LongCall::new(&long_calls), slices.clone());
            let call = async move {
                for _ in 0..10 {
                    next().await;
                    slices.set(slices.get() + 1);
                }
                drop(mark);
            };
            local.spawn_local(async move {
                let mut call = std::pin::pin!(call);
                std::future::poll_fn(|context| {
                    let polled = call.as_mut().poll(context);
                    end();
                    polled
                })
                .await;
            });
        }
        assert_eq!(long_calls.load(Ordering::Relaxed), 100);
        let between = local.block_on(&runtime, async {
            let mut most = 0;
            while slices.get() < 1000 {
                let before = slices.get();
                tokio::task::yield_now().await;
                most = most.max(slices.get() - before);
            }
            most
        });
        assert!(between <= 2, "{between} time slices ran before the neighbour");
        assert_eq!(long_calls.load(Ordering::Relaxed), 0, "all calls have ended");
        Ok(())
    }
}
