//! Keeps the instances that no call uses: idle ones, and per thread at most one whose drop is
//! deferred.
//!
//! Gain: a thread drops the last instance and creates the next one when it has no other work, so no
//! exchange waits for either. For an interpreter, dropping (which copies back the pages that the
//! call wrote) takes about as long as the call, and creating takes about a third of that time.
//! Price: each thread holds up to one instance that waits to be dropped, and idle instances up to
//! [`IDLE_TOTAL_MAX`] over all threads. The pool has room for them beyond the instances in calls,
//! so an idle instance never takes the slot of a call.
//!
//! Each thread has its own instances, so no lock is taken. The instance that was used last is taken
//! first, because its memory is in the processor's caches. An idle instance is either fresh
//! (prewarmed, it has served no call) or, if the operator granted `filters.NAME.reuse`, one that
//! served calls. This module does not know: what a call is, whether a call ended well.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::IDLE_TOTAL_MAX;
use crate::fault_around;
use crate::filter::Filter;
use crate::instance::Instance;
use witgate_http::limiter::Permit;

/// Idle instances of one filter on one thread.
const IDLE_MAX: usize = 16;
/// Idle instances over all threads above which none is prewarmed (the remaining slots are for
/// reused instances).
const PREWARM_TOTAL_MAX: usize = IDLE_TOTAL_MAX / 2;
/// Pool slots that one thread uses for a filter at the same time: one for a call, and one for an
/// instance that waits for its call or its drop.
const SLOTS_PER_THREAD: usize = 2;
/// An instance that was idle for longer is dropped.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    static IDLE: RefCell<Vec<IdleInstances>> = const { RefCell::new(vec![]) };
    static DEFERRED: Cell<Option<Instance>> = const { Cell::new(None) };
}

/// The idle instances of one version of a filter that had a call on this thread.
struct IdleInstances {
    filter: Arc<Filter>,
    /// Ordered by last use; the most recent is last.
    instances: Vec<IdleInstance>,
}

struct IdleInstance {
    instance: Instance,
    since: Instant,
    /// Count the instance for the filter and for the process. Fields drop in order, so the permits
    /// are returned after the instance has been dropped.
    _permits: (Permit, Permit),
}

/// Takes an idle instance of this version on this thread. At the first call of a version it
/// prewarms the thread's slots for it.
pub(crate) fn take(filter: &Arc<Filter>, config: &Arc<BTreeMap<String, String>>) -> Option<Instance> {
    // The outer `None` means that the version is new to this thread, the inner one that no instance
    // is idle.
    let pop = || IDLE.with_borrow_mut(|all| Some(find(all, filter)?.instances.pop()));
    match pop() {
        Some(idle) => idle,
        None => {
            IDLE.with_borrow_mut(|all| all.push(IdleInstances { filter: filter.clone(), instances: vec![] }));
            prewarm(filter, config);
            pop()?
        }
    }
    .map(|idle| idle.instance)
}

/// Keeps an instance for another call. Drops it if there are enough idle instances, or if
/// `sweep` has removed this version from this thread.
pub(crate) fn keep(filter: &Arc<Filter>, instance: Instance) {
    let Ok(in_total) = filter.idle_total.try_acquire(IDLE_TOTAL_MAX) else { return };
    let idle = IdleInstance { instance, since: Instant::now(), _permits: (filter.idle.acquire(), in_total) };
    IDLE.with_borrow_mut(|all| {
        if let Some(of_filter) = find(all, filter).filter(|of_filter| of_filter.instances.len() < IDLE_MAX) {
            of_filter.instances.push(idle);
        }
    });
}

/// Defers the drop of an instance that no call will use again. The instance that was deferred
/// before is dropped first: at most one per thread waits, so that pool slots serve calls.
pub(crate) fn defer_drop(instance: Instance) {
    drop_deferred();
    DEFERRED.set(Some(instance));
}

/// Drops the deferred instance of this thread, if there is one.
///
/// A call does this first, so that its own instance reuses that pool slot, whose pages are in the
/// processor's caches.
pub fn drop_deferred() {
    if let Some(instance) = DEFERRED.take() {
        instance.finish();
    }
}

/// The hook for a thread that is about to sleep: drops the deferred instance and prewarms one for
/// the next call of the same filter.
///
/// A panic does not leave this function. In a call a panic ends one connection, but in the hook of
/// the asynchronous runtime it would end all connections of the thread.
pub fn on_thread_park() {
    // The panic hook has printed the panic to stderr.
    let _ = std::panic::catch_unwind(replace_deferred);
}

/// Drops this thread's instances that were idle for too long, and those of versions for which
/// `is_serving` is false.
pub fn sweep(is_serving: impl Fn(&Arc<Filter>) -> bool) {
    IDLE.with_borrow_mut(|all| {
        all.retain(|of_filter| is_serving(&of_filter.filter));
        for of_filter in all {
            of_filter.instances.retain(|idle| idle.since.elapsed() < IDLE_TIMEOUT);
        }
    });
}

fn replace_deferred() {
    let Some(instance) = DEFERRED.take() else { return };
    let (filter, config) = instance.filter_and_config();
    instance.finish();
    if should_prewarm(&filter)
        && let Some(fresh) = Instance::prewarmed(&filter, &config)
    {
        keep(&filter, fresh);
    }
}

/// Whether this thread should create an instance before the next call asks for one: instantiating
/// the filter executes none of its code, few idle instances exist over all threads (the
/// remaining slots are for reused instances), and this thread has none.
fn should_prewarm(filter: &Arc<Filter>) -> bool {
    !filter.info.runs_code_at_instantiation
        && filter.idle_total.in_use() < PREWARM_TOTAL_MAX
        && IDLE.with_borrow_mut(|all| find(all, filter).is_none_or(|of_filter| of_filter.instances.is_empty()))
}

/// Creates as many instances as this thread will use at the same time, disables fault-around for
/// their memories and keeps one of them.
///
/// The pool gives a thread the slots that it used last, so its later instances are in these slots.
/// Creating two instances maps both slots, so that fault-around can be disabled for both.
fn prewarm(filter: &Arc<Filter>, config: &Arc<BTreeMap<String, String>>) {
    if filter.info.runs_code_at_instantiation {
        return;
    }
    let mut created: Vec<Instance> = (0..SLOTS_PER_THREAD).map_while(|_| Instance::prewarmed(filter, config)).collect();
    if let Err(error) = fault_around::disable(filter.pool_range) {
        tracing::debug!(%error, "fault-around stays enabled: the kernel maps pages that no call needs");
    }
    if let Some(instance) = created.pop() {
        keep(filter, instance);
    }
}

fn find<'a>(all: &'a mut [IdleInstances], filter: &Arc<Filter>) -> Option<&'a mut IdleInstances> {
    all.iter_mut().find(|of_filter| Arc::ptr_eq(&of_filter.filter, filter))
}
