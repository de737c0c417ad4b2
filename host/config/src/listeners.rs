//! `listeners:`: the sockets for clients.
//!
//! This module does not know: how a socket is opened, what TLS files contain.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use crate::tls::ListenerTls;
use crate::values::{name, socket_address};
use crate::yaml::Section;

/// A socket that accepts clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its label in logs and metrics; unique. Default `main`, then `listener-2`, …
    pub name: String,
    /// Unique, except for port 0, which lets the system choose a port.
    pub address: SocketAddr,
    /// Whether every connection begins with a PROXY header (version 1 or 2). Default false.
    pub proxy_protocol: bool,
    /// `None` for plain text.
    pub tls: Option<ListenerTls>,
}

/// Reads the list. Without one there is a plain-text listener at 127.0.0.1:8080.
pub(crate) fn read(top: &Section, base: &Path) -> Vec<Listener> {
    let listeners = top.each("listeners", |index, section| Listener::read(index, section, base));
    check_unique(top, &listeners);
    if !listeners.is_empty() {
        return listeners;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    vec![Listener { name: "main".into(), address, proxy_protocol: false, tls: None }]
}

impl Listener {
    fn read(index: usize, section: &Section, base: &Path) -> Self {
        let default_name = || if index == 0 { "main".into() } else { format!("listener-{}", index + 1) };
        section.require("address", "write an address and a port, such as 0.0.0.0:8080");
        let address = section.scalar("address", socket_address);
        Self {
            name: section.scalar("name", name).unwrap_or_else(default_name),
            address: address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            proxy_protocol: section.bool("proxy_protocol").unwrap_or(false),
            tls: section.optional("tls", |section| ListenerTls::read(section, base)),
        }
    }
}

fn check_unique(top: &Section, listeners: &[Listener]) {
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for (index, Listener { name, address, .. }) in listeners.iter().enumerate() {
        let path = format!("listeners[{index}]");
        if !names.insert(name) {
            top.error_at(&[&path, "name"], format!("{name}: another listener has this name"));
        }
        if address.port() != 0 && !addresses.insert(address) {
            top.error_at(&[&path, "address"], format!("{address}: another listener has this address"));
        }
    }
}
