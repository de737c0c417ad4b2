//! Bounds how many loads are in an expensive step at the same time. Others wait for their turn.
//!
//! This module does not know: what the steps do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The free places of one step.
pub(super) struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place, until it is dropped.
pub(super) struct Place<'a>(&'a Places);

impl Places {
    pub(super) const fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }

    /// Takes a place if one is free.
    pub(super) fn try_take(&self) -> Option<Place<'_>> {
        let mut free = self.lock();
        *free = free.checked_sub(1)?;
        Some(Place(self))
    }

    /// Waits for a place.
    pub(super) fn take(&self) -> Place<'_> {
        let free = self.freed.wait_while(self.lock(), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let places = Places::new(1);
        let first = places.try_take();
        assert!(first.is_some() && places.try_take().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(places.take()));
            drop(first);
            assert!(waiting.join().is_ok());
        });
        assert!(places.try_take().is_some());
    }
}
