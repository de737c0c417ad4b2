//! A TCP connection to an endpoint: its addresses one after the other until one takes it.
//!
//! Which address is first is left to chance, so that the connections to a name spread over its addresses; one that does not answer gets its part of the time, so that
//! the next ones get theirs. Must not know: HTTP, pools.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::endpoint::State;
use super::resolve::addresses;
use crate::config::Upstream;
use crate::error::{Error, Kind};

/// Connects within the upstream's `connect_timeout`, look-up included.
pub async fn connect(state: &Arc<State>, terms: &Upstream) -> Result<TcpStream, Error> {
    let until = Instant::now() + terms.connect_timeout;
    let failed =
        |kind: Kind, why: &str| Error::new(kind, format!("upstream {}: {}: {why}", state.upstream, state.label));
    let found = tokio::time::timeout_at(until, addresses(state, terms.resolve_interval)).await;
    let all = found
        .map_err(|_| failed(Kind::UpstreamDns, "the name was not resolved in time"))?
        .map_err(|why| failed(Kind::UpstreamDns, &why))?;
    let first = if all.len() > 1 { fastrand::usize(..all.len()) } else { 0 };
    let mut last = failed(Kind::UpstreamConnect, "no address was tried");
    for (tried, address) in all.iter().cycle().skip(first).take(all.len()).enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / (all.len() - tried) as u32;
        match one(*address, share).await {
            Ok(stream) => return Ok(stream),
            Err((kind, why)) => last = failed(kind, &format!("{address}: {why}")),
        }
    }
    Err(last)
}

async fn one(address: SocketAddr, time: Duration) -> Result<TcpStream, (Kind, String)> {
    match tokio::time::timeout(time, TcpStream::connect(address)).await {
        // A gateway writes whole messages: waiting for more would only add delay.
        Ok(Ok(stream)) => match stream.set_nodelay(true) {
            Ok(()) => Ok(stream),
            Err(error) => Err((Kind::UpstreamConnect, error.to_string())),
        },
        Ok(Err(error)) => {
            let kind = match error.kind() {
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Kind::UpstreamUnroutable,
                ErrorKind::TimedOut => Kind::UpstreamConnectTimeout,
                _ => Kind::UpstreamConnect,
            };
            Err((kind, error.to_string()))
        }
        Err(_) => Err((Kind::UpstreamConnectTimeout, format!("no connection within {time:?}"))),
    }
}
