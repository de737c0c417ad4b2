//! The turns of long calls: on each thread only one of them runs at a time, and between two of
//! their time slices the thread serves everybody else.
//!
//! A call that meets a tick of the clock is long. Without turns, each of many long calls would run
//! a time slice before a neighbour is served: 400 endless loops held a neighbour for seconds. With
//! turns, a neighbour waits for one time slice, however many long calls there are. The turns go
//! round the filters, and within a filter its calls: a filter with hundreds of loops does not make
//! the long calls of another one miss their deadlines, which continue meanwhile.
//!
//! While a filter has long calls, its next call waits for a turn before it begins: otherwise the
//! first time slices of many new calls would add up. Calls of other filters begin at once.
//!
//! A turn ends with the poll in which the call ran, so a call that waits for the host (a remote
//! store) keeps none.
//!
//! Gain: fairness without a bound on the number of calls. Price: an atomic load for each call, and
//! a look at a thread-local variable for each poll. This module does not know: clocks, deadlines.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

thread_local! {
    /// Has one permit. It is fair: the turns go round the filters, each of which waits once.
    static TURN: OnceCell<Arc<Semaphore>> = const { OnceCell::new() };
    /// For each filter with long calls one permit, whose holder waits for the turn or has it. The
    /// key is the address of the count of these calls.
    static OF_FILTERS: RefCell<HashMap<usize, Weak<Semaphore>>> = RefCell::default();
    /// The permits of the call that is being polled: the turn, and its filter's.
    static HELD: Cell<Option<[OwnedSemaphorePermit; 2]>> = const { Cell::new(None) };
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
/// `of_filter` counts the long calls of the call's filter.
pub(crate) async fn next(of_filter: Arc<AtomicUsize>) {
    end();
    let own = semaphore_of(&of_filter);
    let shared = TURN.with(|turn| turn.get_or_init(|| Arc::new(Semaphore::new(1))).clone());
    // The semaphores are never closed.
    let Ok(own) = own.acquire_owned().await else { return };
    let Ok(turn) = shared.acquire_owned().await else { return };
    // After the wait: whoever gets the turn runs after everybody else. tokio's own yield and not
    // the future's waker: the I/O driver runs before the guest continues.
    tokio::task::yield_now().await;
    HELD.set(Some([turn, own]));
}

/// The permit of a filter on this thread. It exists while a call of the filter has it or waits.
fn semaphore_of(of_filter: &Arc<AtomicUsize>) -> Arc<Semaphore> {
    let key = Arc::as_ptr(of_filter).addr();
    OF_FILTERS.with_borrow_mut(|all| {
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, semaphore| semaphore.strong_count() > 0);
        let new = Arc::new(Semaphore::new(1));
        all.insert(key, Arc::downgrade(&new));
        new
    })
}

/// Ends the turn of the call that was polled, if it had one. To be called after each poll of a
/// call.
#[inline]
pub(crate) fn end() {
    drop(HELD.take());
}

/// Awaits a call, and ends its turn after each poll.
pub(crate) async fn in_turns<F: Future>(call: F) -> F::Output {
    let mut call = pin!(call);
    poll_fn(|context| {
        let polled = call.as_mut().poll(context);
        end();
        polled
    })
    .await
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
            let (mark, slices, of_filter) = (LongCall::new(&long_calls), slices.clone(), long_calls.clone());
            let call = async move {
                for _ in 0..10 {
                    next(of_filter.clone()).await;
                    slices.set(slices.get() + 1);
                }
                drop(mark);
            };
            local.spawn_local(in_turns(call));
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

    #[test]
    fn a_filter_with_many_long_calls_takes_turns_with_another_filter() -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (greedy, tame) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let slices = Rc::new(Cell::new(0));
        let run = |of_filter: Arc<AtomicUsize>, times: usize, slices: Rc<Cell<usize>>| {
            in_turns(async move {
                for _ in 0..times {
                    next(of_filter.clone()).await;
                    slices.set(slices.get() + 1);
                }
            })
        };
        let local = tokio::task::LocalSet::new();
        for _ in 0..100 {
            local.spawn_local(run(greedy.clone(), 100, slices.clone()));
        }
        local.block_on(&runtime, run(tame, 20, Rc::default()));
        assert!((10..=30).contains(&slices.get()), "{} slices of the others during 20 of this one", slices.get());
        Ok(())
    }
}
