//! How many exchanges of one route there may be at once: a slow upstream must not use up what all routes share.
//!
//! Must not know: which route, what the gateway's own bound is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use witgate_http::error::{Error, Kind};

/// A route's bound.
#[derive(Debug)]
pub struct InFlight {
    now: Arc<AtomicUsize>,
    max: usize,
}

/// A place of one exchange; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl InFlight {
    /// At most `max` at once.
    pub fn new(max: usize) -> Self {
        Self { now: Arc::default(), max }
    }

    /// Takes a place, if there is one.
    pub fn enter(&self) -> Result<Place, Error> {
        let before = self.now.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.now.clone());
        if before >= self.max {
            return Err(Error::new(
                Kind::Saturated,
                format!("{before} exchanges of the route, its limit is {}", self.max),
            ));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let limit = InFlight::new(2);
        let places = (limit.enter(), limit.enter());
        assert!(places.0.is_ok() && places.1.is_ok());
        assert_eq!(limit.enter().err().map(|error| error.kind), Some(Kind::Saturated));
        drop(places);
        assert!(limit.enter().is_ok());
    }
}
