//! The instance whose call ended last on this thread, and that is still to be cleaned up after.
//!
//! Copying back what a call wrote takes longer than the call where the filter is an interpreter, and nobody needs it before the next call: so the exchange goes on first, and the thread cleans when
//! it has nothing else to do, at the latest before its next call, which takes the same place in the pool. There is at most one, so that the pool's places and the processor's caches serve calls. Must not know: what a call is.

use std::cell::Cell;

use super::instance::Instance;

thread_local! {
    static ENDED: Cell<Option<Instance>> = const { Cell::new(None) };
}

/// Takes an instance that no call will use again.
pub(super) fn leave(instance: Instance) {
    clean();
    ENDED.set(Some(instance));
}

/// Ends the instance that waits for it on this thread, if there is one: to be called before the thread sleeps.
pub fn clean() {
    if let Some(instance) = ENDED.take() {
        instance.end();
    }
}
