//! `admin:`: the address for metrics, health, readiness and commands, and who may give commands.
//!
//! This module does not know: what the address serves.

use std::net::SocketAddr;

use crate::telemetry::{Secret, read_token};
use crate::values::socket_address;
use crate::yaml::Section;

/// `{address: 127.0.0.1:9901}`, which is the default, or `off` or `false`; and the token.
pub(crate) fn read(top: &Section) -> (Option<SocketAddr>, Option<Secret>) {
    if top.is_off("admin") || top.is_false("admin") {
        return (None, None);
    }
    let (address, token) =
        top.nested("admin", |section| (section.scalar("address", socket_address), read_token(section, "token")));
    (Some(address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9901)))), token)
}
