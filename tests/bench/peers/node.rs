//! A Node gateway (node/ beside this file): fastify and @fastify/http-proxy.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::install::source;
use super::{Peer, Place, running};
use crate::machine;

pub(crate) const SETTINGS: &str = "one process, no logger, undici pool of 256 connections without pipelining, the filter as `preHandler` and `rewriteRequestHeaders`";

pub(super) fn start(place: &Place) -> Result<Peer> {
    let folder = place.npm("node", &source("node"), &["gateway.mjs"])?;
    let mut command = Command::new("node");
    command.arg("gateway.mjs").arg(format!("http://{}", place.upstream)).current_dir(folder);
    command.env("NODE_ENV", "production").stdout(Stdio::piped());
    let mut process = place.spawn("node", &mut command)?;
    let address = process.port()?;
    let version = machine::says(Command::new("node").arg("--version")).context("no version")?;
    Ok(Peer {
        version: format!("Node {}", version.trim_start_matches('v')),
        cases: vec![running("node", address, "/plain", &process), running("node-filter", address, "/filter", &process)],
        _process: process,
    })
}
