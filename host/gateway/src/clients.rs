//! How many connections each client has: so that one client cannot take them all.
//!
//! An IPv6 client counts as its /64, the least that anybody is given. Only looked at where a connection begins or ends. Must not know: what a connection is for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections by client.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// A client's connection, given back when dropped.
#[derive(Debug)]
pub struct Place {
    clients: Arc<Clients>,
    network: IpAddr,
}

impl Clients {
    /// Counts a connection of this client, unless it has `max` already.
    pub fn enter(self: &Arc<Self>, client: IpAddr, max: usize) -> Option<Place> {
        let network = network(client);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Place { clients: self.clone(), network })
    }
}

impl Drop for Place {
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
        let clients = Arc::new(Clients::default());
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse()?, "192.0.2.2".parse()?);
        let first = clients.enter(a, 1);
        assert!(first.is_some() && clients.enter(a, 1).is_none() && clients.enter(b, 1).is_some());
        drop(first);
        assert!(clients.enter(a, 1).is_some());
        let (near, far): (IpAddr, IpAddr) = ("2001:db8::1".parse()?, "2001:db8::2".parse()?);
        let _near = clients.enter(near, 1);
        assert!(clients.enter(far, 1).is_none(), "one /64 is one client");
        Ok(())
    }
}
