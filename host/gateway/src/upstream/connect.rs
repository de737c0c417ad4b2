//! A connection to an endpoint: its addresses one after the other until one takes it, then TLS where it is wanted.
//!
//! Which address is first is left to chance, so that the connections to a name spread over its addresses; one that does not answer gets its part of the time, so that
//! the next ones get theirs. Must not know: HTTP, pools.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::resolve::addresses;
use crate::net::Stream;
use crate::net::tls::{ClientTls, Fault, connect_tls, fault};
use witgate_config::{Alpn, Protocol, Upstream};
use witgate_http::error::{Error, Kind};

/// What a connection trusts and shows; none for plain text.
pub type TlsConfig = Option<Arc<ClientConfig>>;

/// Connects within the upstream's `connect_timeout`, look-up and handshake included. `protocol` is what will be spoken.
pub async fn connect(
    endpoint: &Arc<Endpoint>,
    settings: &Upstream,
    tls: Option<&ClientTls>,
    protocol: Protocol,
) -> Result<(Stream, TlsConfig), Error> {
    let until = Instant::now() + settings.connect_timeout;
    let stream = connect_tcp(endpoint, settings, until).await?;
    let Some(tls) = tls else { return Ok((Stream::Tcp(stream), None)) };
    let failed = |kind, why: String| Error::new(kind, format!("upstream {}: {}: {why}", endpoint.upstream, endpoint.label));
    let (config, alpn) = (tls.current(), alpn(protocol).id());
    let name = tls.name_for(&endpoint.address.host).map_err(|error| failed(Kind::UpstreamTls, error.to_string()))?;
    let shaken = tokio::time::timeout_at(until, connect_tls(stream, config.clone(), name, alpn)).await;
    let stream = shaken
        .map_err(|_| failed(Kind::UpstreamConnectTimeout, format!("no TLS within {:?}", settings.connect_timeout)))?
        .map_err(|error| {
            let kind = match fault(&error) {
                Some(Fault::Certificate) => Kind::UpstreamCertificate,
                Some(Fault::Protocol) => Kind::UpstreamTls,
                None => Kind::UpstreamConnect,
            };
            failed(kind, error.to_string())
        })?;
    // HTTP/1.1 needs no agreement, HTTP/2 does (RFC 9113, section 3.2).
    if protocol == Protocol::H2 && stream.alpn() != Some(alpn.as_bytes()) {
        return Err(failed(Kind::UpstreamTls, "it does not agree on HTTP/2 (ALPN): set protocol: http1".into()));
    }
    Ok((stream, Some(config)))
}

const fn alpn(protocol: Protocol) -> Alpn {
    match protocol {
        Protocol::Http1 => Alpn::Http1,
        Protocol::H2 => Alpn::H2,
    }
}

async fn connect_tcp(endpoint: &Arc<Endpoint>, settings: &Upstream, until: Instant) -> Result<TcpStream, Error> {
    let failed =
        |kind: Kind, why: &str| Error::new(kind, format!("upstream {}: {}: {why}", endpoint.upstream, endpoint.label));
    let found = tokio::time::timeout_at(until, addresses(endpoint, settings.resolve_interval)).await;
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
