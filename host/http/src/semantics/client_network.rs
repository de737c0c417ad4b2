//! The network that counts as one client, wherever the gateway counts by client.
//!
//! This module does not know: what is counted.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv6 address stands for its /64, the smallest network that a site is given. An IPv4 address
/// stands for itself, also in its IPv6 form.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}
