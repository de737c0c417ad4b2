//! Bounds on exchanges at the same time: of the gateway, and of one route.
//!
//! The bound of a route keeps a slow upstream from using up what all routes share. This module does
//! not know: which route, and what an exchange does.

use witgate_http::error::{Error, Kind};
use witgate_http::limiter::{Limiter, Permit};

/// A permit for one exchange of the gateway.
pub fn enter_gateway(in_flight: &Limiter, max: usize) -> Result<Permit, Error> {
    in_flight.try_acquire(max).map_err(|reached| {
        Error::new(Kind::Saturated, format!("{} exchanges in flight, the limit is {max}", reached.in_use))
    })
}

/// A permit for one exchange of a route.
pub fn enter_route(in_flight: &Limiter, max: usize) -> Result<Permit, Error> {
    in_flight.try_acquire(max).map_err(|reached| {
        Error::new(Kind::Saturated, format!("{} exchanges of the route, its limit is {max}", reached.in_use))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_returned() {
        let in_flight = Limiter::default();
        let permits = (enter_route(&in_flight, 2), enter_route(&in_flight, 2));
        assert!(permits.0.is_ok() && permits.1.is_ok());
        assert_eq!(enter_route(&in_flight, 2).err().map(|error| error.kind), Some(Kind::Saturated));
        drop(permits);
        assert!(enter_route(&in_flight, 2).is_ok());
    }
}
