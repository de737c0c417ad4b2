//! Instances that wait for a call: one that was made ahead of it and has served nobody, or, where the operator granted that (`filters.NAME.reuse`), ones that served calls before.
//!
//! Each thread has its own, so no lock is taken, and the one that was used last is taken first: its memory is in the caches. An instance is here or in a call,
//! never both, since it is moved. What is kept is bounded by the calls that were under way at once, for each filter and thread, and over all threads by what the pool has
//! beyond the instances that are in calls: so a kept instance never takes the place of one that is needed. Must not know: what a call is, whether one ended well.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::engine::KEPT_MAX;
use super::fault_around;
use super::instance::Instance;
use super::pool::Filter;

/// Of one filter on one thread.
const IDLE_MAX: usize = 16;
/// Instances that wait over all threads, above which none is made ahead.
const AHEAD_MAX: usize = KEPT_MAX / 2;
/// Instances of a filter that a thread has at once: one in a call, and one that waits for its end or its call.
const PLACES: usize = 2;
/// An instance that waited so long goes.
const IDLE: Duration = Duration::from_secs(5);

thread_local! {
    static SHELVES: RefCell<Vec<Shelf>> = const { RefCell::new(vec![]) };
}

/// One version of one filter that had a call on this thread.
struct Shelf {
    filter: Arc<Filter>,
    /// The one that was used last is last.
    kept: Vec<Kept>,
}

struct Kept {
    instance: Instance,
    since: Instant,
    _counted: Counted,
}

/// Counts a kept instance while it is one.
struct Counted(Arc<Filter>);

impl Counted {
    /// None where there are enough.
    fn new(filter: &Arc<Filter>) -> Option<Self> {
        let counted = Self(filter.clone());
        filter.kept.fetch_add(1, Ordering::Relaxed);
        (filter.kept_in_all.fetch_add(1, Ordering::Relaxed) < KEPT_MAX).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(1, Ordering::Relaxed);
        self.0.kept_in_all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an instance of this version should be made ahead of its next call on this thread: none waits, there is room beside those that are reused, and no code of the filter would run.
pub(super) fn wants_one(filter: &Arc<Filter>) -> bool {
    !filter.description.starts_code
        && filter.kept_in_all.load(Ordering::Relaxed) < AHEAD_MAX
        && SHELVES.with_borrow_mut(|shelves| shelf(shelves, filter).is_none_or(|shelf| shelf.kept.is_empty()))
}

/// Takes an instance of this version that waits on this thread. Before the first call of a version none can: then its places in the pool are made, and an instance.
pub(super) fn take(filter: &Arc<Filter>, config: &Arc<BTreeMap<String, String>>) -> Option<Instance> {
    let pop = || SHELVES.with_borrow_mut(|shelves| Some(shelf(shelves, filter)?.kept.pop()));
    match pop() {
        Some(kept) => kept,
        None => {
            SHELVES.with_borrow_mut(|shelves| shelves.push(Shelf { filter: filter.clone(), kept: vec![] }));
            arrive(filter, config);
            pop()?
        }
    }
    .map(|kept| kept.instance)
}

/// Makes as many instances as this thread has at once, as a rule, and sees to it that their memories fill page by page: this thread's later ones will have their places, since the pool gives each thread those that it had last.
fn arrive(filter: &Arc<Filter>, config: &Arc<BTreeMap<String, String>>) {
    if filter.description.starts_code {
        return;
    }
    let mut made: Vec<Instance> = (0..PLACES).map_while(|_| Instance::ahead(filter, config)).collect();
    if let Err(error) = fault_around::stop(filter.memories) {
        tracing::debug!(%error, "pages do not come in one by one");
    }
    if let Some(one) = made.pop() {
        keep(filter, one);
    }
}

fn shelf<'a>(shelves: &'a mut [Shelf], filter: &Arc<Filter>) -> Option<&'a mut Shelf> {
    shelves.iter_mut().find(|shelf| Arc::ptr_eq(&shelf.filter, filter))
}

/// Keeps an instance for another call; where there are enough it goes.
pub(super) fn keep(filter: &Arc<Filter>, instance: Instance) {
    let Some(counted) = Counted::new(filter) else { return };
    let kept = Kept { instance, since: Instant::now(), _counted: counted };
    SHELVES.with_borrow_mut(|shelves| {
        if let Some(shelf) = shelf(shelves, filter).filter(|shelf| shelf.kept.len() < IDLE_MAX) {
            shelf.kept.push(kept);
        }
    });
}

/// Lets go of this thread's instances that waited too long, and of all versions of filters that do not serve any more.
pub fn sweep(is_serving: impl Fn(&Arc<Filter>) -> bool) {
    SHELVES.with_borrow_mut(|shelves| {
        shelves.retain(|shelf| is_serving(&shelf.filter));
        for shelf in shelves {
            shelf.kept.retain(|kept| kept.since.elapsed() < IDLE);
        }
    });
}
