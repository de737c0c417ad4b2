//! `admin:`: the address for metrics, health and readiness.
//!
//! This module does not know: what the address serves.

use std::net::SocketAddr;

use crate::values::socket_address;
use crate::yaml::Section;

/// `{address: 127.0.0.1:9901}`, which is the default, or `off` or `false`.
pub(crate) fn read(top: &Section) -> Option<SocketAddr> {
    if top.is_off("admin") || top.is_false("admin") {
        return None;
    }
    let address = top.nested("admin", |section| section.scalar("address", socket_address));
    Some(address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9901))))
}
