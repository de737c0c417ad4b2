//! The bytes of bodies that the gateway holds in memory for filters: bodies that it buffers, and
//! bodies that filters make. They count until they were sent or dropped.
//!
//! A [`Budget`] has three bounds: on the bytes of all exchanges, of one route, and of one client,
//! so that neither a slow client nor a busy route uses up what all share. A body counts as its
//! bytes arrive: a client that announces a large body and sends little of it holds little.
//!
//! The counted bytes carry their [`Charge`] with them ([`hold`]), and the last copy of them returns
//! it. Bodies below [`FREE_BYTES`] are not counted. Gain: small bodies cost no counting. Price: an
//! exchange may hold that much beyond the bounds, as it does with its head.
//!
//! Two clients may share a counter ([`ClientCounts`]), and then a share.
//! This module does not know: configuration, filters.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::client_counts::ClientCounts;
use crate::limiter::{Limiter, Permit};

/// Bodies with fewer bytes are not counted.
pub const FREE_BYTES: usize = 4 << 10;
/// A body that arrives is counted in steps of this many bytes.
const STEP_BYTES: usize = 16 << 10;
const CLIENT_COUNTERS: usize = 1024;

/// Counts what all exchanges hold. Clones share the counts.
#[derive(Clone)]
pub struct HeldBytes(Arc<Counters>);

struct Counters {
    all: Limiter,
    clients: ClientCounts,
}

/// The bounds of a route's exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLimits {
    /// For all exchanges together.
    pub all: usize,
    /// For the exchanges of the route.
    pub route: usize,
    /// For the exchanges of one client, on all routes.
    pub client: usize,
}

/// What the exchanges of one route may hold.
pub struct Budget {
    held: HeldBytes,
    route: Limiter,
    bounds: HeldLimits,
}

/// Counted bytes. Dropping the charge returns them.
#[derive(Debug)]
#[must_use = "dropping a charge returns it at once"]
pub struct Charge {
    all: Permit,
    route: Permit,
    client: Permit,
}

/// A bound that would have been exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    setting: &'static str,
    max: usize,
}

impl Charge {
    /// Adds another charge for the same exchange.
    fn merge(&mut self, other: Self) {
        self.all.merge(other.all);
        self.route.merge(other.route);
        self.client.merge(other.client);
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "bodies in memory would be more than {} ({})", self.setting, self.max)
    }
}

impl Default for HeldBytes {
    fn default() -> Self {
        Self(Arc::new(Counters { all: Limiter::default(), clients: ClientCounts::new(CLIENT_COUNTERS) }))
    }
}

impl HeldBytes {
    /// The bytes that all exchanges hold.
    pub fn total(&self) -> usize {
        self.0.all.in_use()
    }
}

impl Budget {
    /// A budget for the exchanges of one route.
    pub fn new(held: &HeldBytes, bounds: HeldLimits) -> Self {
        Self { held: held.clone(), route: Limiter::default(), bounds }
    }

    /// Counts `bytes` for an exchange of this client.
    pub fn charge(&self, client: IpAddr, bytes: usize) -> Result<Charge, Exceeded> {
        let HeldLimits { all, route, client: own } = self.bounds;
        let exceeded = |setting, max| move |_| Exceeded { setting, max };
        Ok(Charge {
            client: (self.held.0.clients.of(client).try_acquire_many(bytes, own)).map_err(exceeded(CLIENT, own))?,
            route: self.route.try_acquire_many(bytes, route).map_err(exceeded(ROUTE, route))?,
            all: self.held.0.all.try_acquire_many(bytes, all).map_err(exceeded(ALL, all))?,
        })
    }

    /// A body of an exchange of this client. It is counted while a copy of it exists.
    pub fn hold(&self, client: IpAddr, body: impl Into<Bytes>) -> Result<Bytes, Exceeded> {
        let body = body.into();
        if body.len() < FREE_BYTES {
            return Ok(body);
        }
        self.charge(client, body.len()).map(|charge| hold(body, charge))
    }

    /// Counts what a body that arrives has grown to.
    pub fn arriving(self: &Arc<Self>, client: IpAddr) -> Arriving {
        Arriving { budget: Some((self.clone(), client)), counted: 0, charge: None }
    }
}

const ALL: &str = "limits.buffered_bytes";
const ROUTE: &str = "the route's limits.buffered_bytes";
const CLIENT: &str = "limits.buffered_bytes_per_client";

/// The count of a body that arrives.
pub struct Arriving {
    budget: Option<(Arc<Budget>, IpAddr)>,
    counted: usize,
    charge: Option<Charge>,
}

impl Arriving {
    /// Counts nothing: for bodies that are not held for filters.
    pub fn uncounted() -> Self {
        Self { budget: None, counted: 0, charge: None }
    }

    /// Counts the bytes of a body that has `length` bytes so far.
    pub fn grow_to(&mut self, length: usize) -> Result<(), Exceeded> {
        let Some((budget, client)) = &self.budget else { return Ok(()) };
        if length < FREE_BYTES || length <= self.counted {
            return Ok(());
        }
        let exact = length - self.counted;
        let step = exact.max(STEP_BYTES);
        let (bytes, charge) = match budget.charge(*client, step) {
            Ok(charge) => (step, charge),
            Err(_) => (exact, budget.charge(*client, exact)?),
        };
        self.counted += bytes;
        match &mut self.charge {
            Some(total) => total.merge(charge),
            none => *none = Some(charge),
        }
        Ok(())
    }

    /// The whole body. It is counted while a copy of it exists.
    pub fn hold(self, body: Bytes) -> Bytes {
        match self.charge {
            Some(charge) => hold(body, charge),
            None => body,
        }
    }
}

/// The same bytes with a value that the last copy of them drops.
fn hold(body: Bytes, charge: impl Send + 'static) -> Bytes {
    struct Held<T> {
        body: Bytes,
        _charge: T,
    }
    impl<T> AsRef<[u8]> for Held<T> {
        fn as_ref(&self) -> &[u8] {
            &self.body
        }
    }
    Bytes::from_owner(Held { body, _charge: charge })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn budget(all: usize, route: usize, client: usize) -> (HeldBytes, Arc<Budget>) {
        let held = HeldBytes::default();
        let budget = Arc::new(Budget::new(&held, HeldLimits { all, route, client }));
        (held, budget)
    }

    #[test]
    fn a_body_counts_until_its_last_copy_is_dropped() {
        let (held, budget) = budget(10_000, 10_000, 10_000);
        let body = budget.hold(A, vec![0; 6000]).ok();
        assert_eq!(held.total(), 6000);
        assert!(budget.hold(A, vec![0; 5000]).is_err());
        let copy = body.as_ref().map(|body| body.slice(1..2));
        drop(body);
        assert_eq!(held.total(), 6000);
        drop(copy);
        assert_eq!(held.total(), 0);
        assert!(budget.hold(A, vec![0; FREE_BYTES - 1]).is_ok());
        assert_eq!(held.total(), 0);
    }

    #[test]
    fn a_refused_charge_names_its_bound_and_changes_nothing() {
        for (all, route, client, setting) in [
            (9000, 20_000, 20_000, "limits.buffered_bytes ("),
            (20_000, 9000, 20_000, "the route's"),
            (20_000, 20_000, 9000, "_per_client"),
        ] {
            let (held, budget) = budget(all, route, client);
            let refused = budget.hold(A, vec![0; 9001]).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(setting), "{refused}");
            assert_eq!(held.total(), 0);
            assert!(budget.hold(A, vec![0; 9000]).is_ok());
        }
    }

    #[test]
    fn a_body_that_arrives_counts_what_has_arrived() {
        let (held, budget) = budget(1 << 20, 1 << 20, 1 << 20);
        let mut arriving = budget.arriving(A);
        assert_eq!(arriving.grow_to(100), Ok(()));
        assert_eq!(held.total(), 0);
        for length in (0..=1 << 20).step_by(1000) {
            assert_eq!(arriving.grow_to(length), Ok(()));
            assert!(length < FREE_BYTES || held.total() >= length);
        }
        assert_eq!(arriving.grow_to(1 << 20), Ok(()), "the last bytes of the bound can be used");
        assert!(arriving.grow_to((1 << 20) + 1).is_err());
        drop(arriving);
        assert_eq!(held.total(), 0);
    }
}
