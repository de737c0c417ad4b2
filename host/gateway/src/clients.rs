//! Connections counted by client, so that one client cannot use all of them.
//!
//! An IPv6 client counts as its /64 network, the smallest that a site is given. The map is locked
//! only when a connection opens or closes. This module does not know: what a connection is for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The number of connections of each client that has any.
#[derive(Debug, Default)]
pub struct ClientConnections(Mutex<HashMap<IpAddr, usize>>);

/// A permit for one connection of a client. Dropping the permit returns it.
#[derive(Debug)]
pub struct Permit {
    clients: Arc<ClientConnections>,
    network: IpAddr,
}

impl ClientConnections {
    /// Takes a permit for a connection of this client. None if the client has `max` connections.
    pub fn try_acquire(self: &Arc<Self>, client: IpAddr, max: usize) -> Option<Permit> {
        let network = network(client);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Permit { clients: self.clone(), network })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_count() -> Result<(), std::net::AddrParseError> {
        let clients = Arc::new(ClientConnections::default());
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse()?, "192.0.2.2".parse()?);
        let first = clients.try_acquire(a, 1);
        assert!(first.is_some() && clients.try_acquire(a, 1).is_none() && clients.try_acquire(b, 1).is_some());
        drop(first);
        assert!(clients.try_acquire(a, 1).is_some());
        let (near, far): (IpAddr, IpAddr) = ("2001:db8::1".parse()?, "2001:db8::2".parse()?);
        let _near = clients.try_acquire(near, 1);
        assert!(clients.try_acquire(far, 1).is_none(), "one /64 is one client");
        Ok(())
    }
}
