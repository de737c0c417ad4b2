//! Connections and exchanges counted by client, so that one client cannot use all of them.
//!
//! An IPv6 client counts as its /64 network, the smallest that a site is given. The map is locked
//! only when a connection opens or closes, or when a trusted proxy names the client of a request.
//! This module does not know: what a connection or an exchange is for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use witgate_http::limiter::Limiter;
use witgate_http::semantics::client_network::client_network;

/// What each client with a connection or an exchange uses.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<IpAddr, Usage>>);

#[derive(Debug, Default)]
struct Usage {
    connections: usize,
    /// The number of [`ClientPermit`]s.
    permits: usize,
    in_flight: Limiter,
}

/// Keeps the count of a client, and one of its connections. Dropping the permit returns it.
#[derive(Debug)]
pub struct ClientPermit {
    clients: Arc<Clients>,
    network: IpAddr,
    is_connection: bool,
    /// Exchanges of the client.
    pub in_flight: Limiter,
}

impl Clients {
    /// Takes a permit for a connection of this client. None if the client has `max` connections.
    pub fn try_connect(self: &Arc<Self>, client: IpAddr, max: usize) -> Option<ClientPermit> {
        self.permit(client, Some(max))
    }

    /// Finds the count of a client's exchanges, whoever connected.
    pub fn exchanges(self: &Arc<Self>, client: IpAddr) -> Option<ClientPermit> {
        self.permit(client, None)
    }

    fn permit(self: &Arc<Self>, client: IpAddr, connections_max: Option<usize>) -> Option<ClientPermit> {
        let network = client_network(client);
        let mut clients = self.lock();
        let used = clients.get(&network).map_or(0, |usage| usage.connections);
        if connections_max.is_some_and(|max| used >= max) {
            return None;
        }
        let usage = clients.entry(network).or_default();
        usage.permits += 1;
        usage.connections += usize::from(connections_max.is_some());
        let in_flight = usage.in_flight.clone();
        Some(ClientPermit { clients: self.clone(), network, is_connection: connections_max.is_some(), in_flight })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Usage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut clients = self.clients.lock();
        if let Some(usage) = clients.get_mut(&self.network) {
            usage.permits -= 1;
            usage.connections -= usize::from(self.is_connection);
            if usage.permits == 0 {
                clients.remove(&self.network);
            }
        }
    }
}

/// How much of a shared resource one client may use: as much as is free, but at least `floor`.
///
/// So one client gets at most half. A second one gets at most half of the rest, and so on: a few
/// clients cannot use up the resource, while one alone gets far.
pub fn fair_share(max: usize, in_use: usize, floor: usize) -> usize {
    max.saturating_sub(in_use).max(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_count() -> Result<(), std::net::AddrParseError> {
        let clients = Arc::new(Clients::default());
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse()?, "192.0.2.2".parse()?);
        let first = clients.try_connect(a, 1);
        assert!(first.is_some() && clients.try_connect(a, 1).is_none() && clients.try_connect(b, 1).is_some());
        drop(first);
        assert!(clients.try_connect(a, 1).is_some());
        let (near, far): (IpAddr, IpAddr) = ("2001:db8::1".parse()?, "2001:db8::2".parse()?);
        let _near = clients.try_connect(near, 1);
        assert!(clients.try_connect(far, 1).is_none(), "one /64 is one client");
        Ok(())
    }

    #[test]
    fn exchanges_are_counted_over_connections_and_forgotten_with_the_last() -> Result<(), std::net::AddrParseError> {
        let clients = Arc::new(Clients::default());
        let a: IpAddr = "192.0.2.1".parse()?;
        let (connection, named) = (clients.try_connect(a, 1), clients.exchanges(a));
        let exchange = connection.as_ref().map(|permit| permit.in_flight.acquire());
        assert_eq!(named.as_ref().map(|permit| permit.in_flight.in_use()), Some(1));
        drop((connection, exchange));
        assert!(clients.try_connect(a, 1).is_some(), "a named client holds no connection");
        drop(named);
        assert!(clients.lock().is_empty());
        Ok(())
    }

    #[test]
    fn greedy_clients_leave_room_for_others() {
        let (max, floor) = (1024, 32);
        let mut in_use = 0;
        let mut shares = vec![];
        for _ in 0..6 {
            let mut own = 0;
            while own < fair_share(max, in_use + 1, floor) && in_use < max {
                (own, in_use) = (own + 1, in_use + 1);
            }
            shares.push(own);
        }
        assert_eq!(shares, [512, 256, 128, 64, 32, 32]);
    }
}
