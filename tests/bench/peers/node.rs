//! A Node gateway with fastify and @fastify/http-proxy. Its source is in node/ in this folder.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::install::source;
use super::process::{Environment, Peer, running_case};
use crate::machine;

pub(crate) const SETTINGS: &str = "one process, no logger, undici pool of 256 connections without pipelining, the filter as `preHandler` and `rewriteRequestHeaders`";

pub(super) fn start(environment: &Environment) -> Result<Peer> {
    let folder = environment.npm("node", &source("node"), &["gateway.mjs"])?;
    let mut command = Command::new("node");
    command.arg("gateway.mjs").arg(format!("http://{}", environment.upstream)).current_dir(folder);
    command.env("NODE_ENV", "production").stdout(Stdio::piped());
    let mut process = environment.spawn("node", &mut command)?;
    let address = process.port()?;
    let version = machine::first_line(Command::new("node").arg("--version")).context("Node prints no version")?;
    Ok(Peer {
        version: format!("Node {}", version.trim_start_matches('v')),
        cases: vec![
            running_case("node", address, "/plain", &process),
            running_case("node-filter", address, "/filter", &process),
        ],
        ports: None,
        _process: process,
    })
}
