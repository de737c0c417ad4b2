//! Counts what is in use at the same time, up to a bound: exchanges, connections, bytes in memory.
//!
//! The caller gives the bound with each acquisition, because a reload may change it. A refused
//! acquisition changes nothing, so the count never exceeds its bound, not even for an instant. An
//! acquisition costs one compare-and-swap and one reference count; a permit needs no allocation.
//! This module does not know: what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A count of permits that are in use. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Limiter(Arc<AtomicUsize>);

/// One or more units of a [`Limiter`]. Dropping the permit returns them.
#[derive(Debug)]
#[must_use = "dropping a permit returns it at once"]
pub struct Permit {
    in_use: Arc<AtomicUsize>,
    units: usize,
}

/// The acquisition would have exceeded its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReached {
    /// Units that were in use at that moment.
    pub in_use: usize,
}

impl Limiter {
    /// Takes one unit, whatever the count is.
    pub fn acquire(&self) -> Permit {
        self.0.fetch_add(1, Ordering::Relaxed);
        Permit { in_use: self.0.clone(), units: 1 }
    }

    /// Takes one unit if no more than `max` are in use then.
    #[inline]
    pub fn try_acquire(&self, max: usize) -> Result<Permit, LimitReached> {
        self.try_acquire_many(1, max)
    }

    /// Takes `units` if no more than `max` are in use then.
    #[inline]
    pub fn try_acquire_many(&self, units: usize, max: usize) -> Result<Permit, LimitReached> {
        let add = |in_use: usize| in_use.checked_add(units).filter(|total| *total <= max);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(Permit { in_use: self.0.clone(), units }),
            Err(in_use) => Err(LimitReached { in_use }),
        }
    }

    /// Units in use.
    #[inline]
    pub fn in_use(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// Adds the units of another permit of the same limiter.
    pub(crate) fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.in_use, &other.in_use));
        self.units += std::mem::take(&mut other.units);
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.in_use.fetch_sub(self.units, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_can_be_acquired_again() {
        let limiter = Limiter::default();
        let permits = (limiter.try_acquire(2), limiter.try_acquire(2));
        assert!(permits.0.is_ok() && permits.1.is_ok());
        assert_eq!(limiter.try_acquire(2).err(), Some(LimitReached { in_use: 2 }));
        assert_eq!(limiter.in_use(), 2, "a refused acquisition changes nothing");
        drop(permits);
        assert!(limiter.try_acquire(2).is_ok());
    }

    #[test]
    fn a_permit_of_many_units_counts_all_of_them() {
        let limiter = Limiter::default();
        let first = limiter.try_acquire_many(6, 10);
        assert!(first.is_ok());
        assert!(limiter.try_acquire_many(5, 10).is_err() && limiter.try_acquire_many(usize::MAX, 10).is_err());
        assert!(limiter.try_acquire_many(4, 10).is_ok());
    }
}
