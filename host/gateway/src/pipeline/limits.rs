//! Bounds on exchanges at the same time: of the gateway, of one client, and of one route.
//!
//! The bound of a client keeps it from using up what all clients share, and the bound of a route
//! does the same for a slow upstream. This module does not know: which route or client, and what
//! an exchange does.

use crate::clients::fair_share;
use witgate_config::Limits;
use witgate_http::error::{Error, Kind};
use witgate_http::limiter::{Limiter, Permit};

/// Each client may have so many exchanges, however busy the gateway is.
const CLIENT_FLOOR: usize = 32;

/// The permits for one exchange of the gateway and of a client, if its share is limited.
pub fn enter(
    in_flight: &Limiter,
    client: Option<&Limiter>,
    limits: &Limits,
) -> Result<(Permit, Option<Permit>), Error> {
    let max = limits.in_flight;
    let permit = in_flight.try_acquire(max).map_err(|reached| {
        Error::new(Kind::Saturated, format!("{} exchanges in flight, the limit is {max}", reached.in_use))
    })?;
    Ok((permit, enter_client(in_flight, client, limits)?))
}

/// A permit for one exchange of a client. The exchange has its permit of the gateway.
pub fn enter_client(in_flight: &Limiter, client: Option<&Limiter>, limits: &Limits) -> Result<Option<Permit>, Error> {
    let Some(client) = client else { return Ok(None) };
    let max = match limits.in_flight_per_client {
        0 => fair_share(limits.in_flight, in_flight.in_use(), CLIENT_FLOOR),
        configured => configured,
    };
    let permit = client.try_acquire(max).map_err(|reached| {
        Error::new(Kind::ClientSaturated, format!("{} exchanges of the client, its share is {max}", reached.in_use))
    })?;
    Ok(Some(permit))
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

    #[test]
    fn one_client_gets_half_of_the_gateway() -> Result<(), Error> {
        let text = "upstreams: {e: {builtin: echo}}\nroutes: [{upstream: e}]";
        let config = witgate_config::Config::parse(text, "f", std::path::Path::new("/"));
        let mut limits = config.map_err(|errors| Error::new(Kind::Internal, errors.to_string()))?.limits;
        let (gateway, greedy, other) = (Limiter::default(), Limiter::default(), Limiter::default());
        let mut permits = vec![];
        let refused = loop {
            match enter(&gateway, Some(&greedy), &limits) {
                Ok(entered) => permits.push(entered),
                Err(error) => break error.kind,
            }
        };
        assert_eq!((permits.len(), refused), (512, Kind::ClientSaturated));
        assert_eq!(gateway.in_use(), 512, "a refused exchange returns its permit");
        assert!(enter(&gateway, Some(&other), &limits).is_ok() && enter(&gateway, None, &limits).is_ok());
        limits.in_flight_per_client = 513;
        assert!(enter(&gateway, Some(&greedy), &limits).is_ok(), "the operator decides");
        Ok(())
    }
}
