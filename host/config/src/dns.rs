//! `dns:`: the servers that resolve the names of upstreams.
//!
//! This module does not know: how a name is resolved.

use std::net::{IpAddr, SocketAddr};

use crate::yaml::Section;

const SERVERS_MAX: usize = 8;

/// `{servers: [10.0.0.2, "10.0.0.3:8600"]}`. Empty (the default): as /etc/resolv.conf says.
pub(crate) fn read(top: &Section) -> Vec<SocketAddr> {
    top.nested("dns", |section| {
        let servers = section.list("servers", server);
        if servers.len() > SERVERS_MAX {
            section.error_at(&["servers"], format!("{} servers: at most {SERVERS_MAX} are allowed", servers.len()));
        }
        servers
    })
}

fn server(text: &str) -> Result<SocketAddr, String> {
    text.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, 53))
        .or_else(|_| text.parse())
        .map_err(|_| "write an IP address, with a port if it is not 53: 10.0.0.2 or 10.0.0.2:8600".into())
}
