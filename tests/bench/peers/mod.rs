//! The gateways that witgate is compared with. They are installed below target/bench and run on the
//! gateway's core, with one worker each.
//!
//! If a peer cannot be installed or started, the table says why, and the run goes on.
//!
//! This module does not know: witgate, load, tables.

mod envoy;
mod extism;
mod haproxy;
mod install;
mod nginx;
mod node;
mod process;

use anyhow::Result;

pub(crate) use install::Root;
pub(crate) use nginx::upstream as nginx_upstream;
pub(crate) use process::{Environment, NOT_STARTED, Peer, Ports, Process, configure, free_address};

/// How a peer is installed and started.
pub(crate) struct PeerSpec {
    /// The name in `--peers`.
    pub(crate) name: &'static str,
    /// The settings for this comparison, as the report shows them.
    pub(crate) settings: &'static str,
    pub(crate) start: fn(&Environment) -> Result<Peer>,
}

/// All peers, in the table's order.
pub(crate) const PEERS: [PeerSpec; 5] = [
    PeerSpec { name: "nginx", settings: nginx::SETTINGS, start: nginx::start },
    PeerSpec { name: "haproxy", settings: haproxy::SETTINGS, start: haproxy::start },
    PeerSpec { name: "envoy", settings: envoy::SETTINGS, start: envoy::start },
    PeerSpec { name: "node", settings: node::SETTINGS, start: node::start },
    PeerSpec { name: "extism", settings: extism::SETTINGS, start: extism::start },
];
