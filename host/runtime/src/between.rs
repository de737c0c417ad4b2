//! What a thread does for its filters between two calls: it ends the instance of the last one, and makes that of the next.
//!
//! To copy back what a call wrote takes about as long as the call where the filter is an interpreter, and to make an instance a third of it. No exchange needs to wait for either: a thread does both when it has
//! nothing else to do. Where it always has, the next call does it, in the place in the pool that the last one had, whose pages are in the processor's caches. There is at most one instance
//! that waits for its end, so that the pool's places serve calls. Must not know: what a call is.

use std::cell::Cell;

use super::instance::Instance;
use super::reuse;

thread_local! {
    static ENDED: Cell<Option<Instance>> = const { Cell::new(None) };
}

/// Takes an instance that no call will use again.
pub(super) fn leave(instance: Instance) {
    clean();
    ENDED.set(Some(instance));
}

/// Ends the instance that waits for it on this thread, if there is one.
pub fn clean() {
    if let Some(instance) = ENDED.take() {
        instance.finish();
    }
}

/// Before the thread sleeps: the same, and makes an instance of that filter for its next call. A panic ends here: in a call it would end one connection, but in the runtime's hook all of the thread's.
pub fn before_sleep() {
    // What it was stands on stderr.
    let _ = std::panic::catch_unwind(prepare);
}

fn prepare() {
    let Some(ended) = ENDED.take() else { return };
    let (filter, config) = ended.of();
    ended.finish();
    if reuse::wants_one(&filter)
        && let Some(fresh) = Instance::ahead(&filter, &config)
    {
        reuse::keep(&filter, fresh);
    }
}
