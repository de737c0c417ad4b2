//! Command-line options, and the length of a full and of a quick run.
//!
//! This module does not know: how anything is measured.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;

use crate::peers::PEERS;

/// Compares witgate with other gateways, which it installs below target/bench.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Options {
    /// Measure only these peers; `none` measures witgate alone
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Run short rounds to check that everything works; the figures are not meaningful
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only print the tables, and leave docs/ unchanged
    #[arg(long)]
    pub(crate) no_write: bool,
    /// Only measure what the access log, traces and metrics cost
    #[arg(long)]
    pub(crate) telemetry: bool,
    /// Also reload a filter 100 times with 10,000 requests after each (minutes)
    #[arg(long)]
    pub(crate) reloads: bool,
    /// Only compare token checks with nginx and njs, and components with `wasmtime serve`
    #[arg(long)]
    pub(crate) services: bool,
    /// Measure only bodies, HTTP/2, TLS and idle connections; prints that table
    #[arg(long)]
    pub(crate) transfers: bool,
}

/// The number and length of the measurements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    pub(crate) closed_rounds: usize,
    pub(crate) closed: Duration,
    pub(crate) open_rounds: usize,
    pub(crate) open: Duration,
    pub(crate) swaps: usize,
    pub(crate) memory: Duration,
    pub(crate) transfer_rounds: usize,
    /// Requests of h2load in one round.
    pub(crate) requests: u64,
    /// Bodies in one round.
    pub(crate) downloads: usize,
    pub(crate) idle_connections: usize,
    /// From the last request of an idle connection until memory is read.
    pub(crate) settle: Duration,
}

/// A run whose figures are published.
pub(crate) const FULL: Lengths = Lengths {
    closed_rounds: 7,
    closed: Duration::from_millis(1500),
    open_rounds: 3,
    open: Duration::from_secs(3),
    swaps: 5,
    memory: Duration::from_secs(5),
    transfer_rounds: 5,
    requests: 30_000,
    downloads: 4,
    idle_connections: 5000,
    settle: Duration::from_secs(12),
};
/// `--quick`.
pub(crate) const QUICK: Lengths = Lengths {
    closed_rounds: 1,
    closed: Duration::from_millis(300),
    open_rounds: 1,
    open: Duration::from_millis(800),
    swaps: 1,
    memory: Duration::from_secs(1),
    transfer_rounds: 1,
    requests: 1000,
    downloads: 1,
    idle_connections: 500,
    settle: Duration::from_secs(2),
};

impl Options {
    /// Returns the names of the peers to measure. Fails if a name is unknown.
    pub(crate) fn chosen(&self) -> Result<Vec<&'static str>> {
        let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        let Some(requested) = &self.peers else { return Ok(known) };
        let requested: Vec<&String> = requested.iter().filter(|name| *name != "none").collect();
        if let Some(unknown) = requested.iter().find(|name| !known.contains(&name.as_str())) {
            bail!("--peers {unknown}: unknown peer; known are {}", known.join(", "));
        }
        Ok(known.into_iter().filter(|name| requested.iter().any(|requested| requested == name)).collect())
    }

    /// Returns the command that repeats this run.
    pub(crate) fn command(&self) -> String {
        let mut text = "npx -y rust-just bench".to_owned();
        if let Some(peers) = &self.peers {
            text.push_str(&format!(" --peers {}", peers.join(",")));
        }
        for (is_set, name) in [(self.quick, " --quick"), (self.reloads, " --reloads")] {
            text.push_str(if is_set { name } else { "" });
        }
        text
    }
}
