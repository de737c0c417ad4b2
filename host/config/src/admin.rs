//! `admin:`: the address for metrics, health, readiness and commands, who may read
//! them, and who may give commands.
//!
//! This module does not know: what the address serves.

use std::net::SocketAddr;

use crate::telemetry::{Secret, read_token};
use crate::values::socket_address;
use crate::yaml::Section;

/// The keys of `admin`.
#[derive(Default)]
pub(crate) struct Admin {
    /// Default 127.0.0.1:9901. `None` for `off` and `false`.
    pub(crate) address: Option<SocketAddr>,
    /// May do everything.
    pub(crate) token: Option<Secret>,
    /// May read.
    pub(crate) read_token: Option<Secret>,
}

impl Admin {
    pub(crate) fn read(top: &Section) -> Self {
        if top.is_off("admin") || top.is_false("admin") {
            return Self::default();
        }
        top.nested("admin", |section| {
            let address = section.scalar("address", socket_address);
            let (token, read_token) = (read_token(section, "token"), read_token(section, "read_token"));
            let is_open = address.is_some_and(|address| !address.ip().is_loopback());
            if is_open && token.is_none() && read_token.is_none() {
                let message = "others can reach this address: add `token`, which may do everything, or `read_token`, which may read; or use 127.0.0.1";
                section.error_at(&["address"], message);
            }
            if token.is_some() && token == read_token {
                section.error_at(&["read_token"], "equals token: the token decides the role, so the two must differ");
            }
            Self { address: Some(address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9901)))), token, read_token }
        })
    }
}
