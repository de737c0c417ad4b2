//! Connects to an endpoint: TCP to one of its addresses, then TLS if the upstream uses it.
//!
//! The first address is chosen at random, so that connections spread over all addresses of a name.
//! Each address gets its share of the time, so that one that does not answer leaves time for the
//! next ones. This module does not know: HTTP, pools.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use crate::net::Stream;
use crate::net::tls::{ClientTls, Fault, connect_tls, fault};
use witgate_config::{Alpn, Protocol, Upstream};
use witgate_http::error::{Error, Kind};

/// The TLS configuration that a connection was made with; none for plain text.
pub(super) type TlsConfig = Option<Arc<ClientConfig>>;

/// Connects within the upstream's `connect_timeout`, which includes the DNS lookup and the TLS
/// handshake. `protocol` is the one that the connection will carry. The error's detail does not
/// name the endpoint.
pub(super) async fn connect(
    endpoint: &Endpoint,
    settings: &Upstream,
    tls: Option<&ClientTls>,
    protocol: Protocol,
) -> Result<(Stream, TlsConfig), Error> {
    let until = Instant::now() + settings.connect_timeout;
    let stream = connect_tcp(endpoint, settings, until).await?;
    let Some(tls) = tls else { return Ok((Stream::Tcp(stream), None)) };
    let (config, alpn) = (tls.current(), alpn(protocol).id());
    let name =
        tls.name_for(&endpoint.address.host).map_err(|error| Error::new(Kind::UpstreamTls, error.to_string()))?;
    let handshake = tokio::time::timeout_at(until, connect_tls(stream, config.clone(), name, alpn)).await;
    let stream = handshake
        .map_err(|_| {
            let detail = format!("no TLS within {:?}", settings.connect_timeout);
            Error::new(Kind::UpstreamConnectTimeout, detail)
        })?
        .map_err(|error| {
            let kind = match fault(&error) {
                Some(Fault::Certificate) => Kind::UpstreamCertificate,
                Some(Fault::Protocol) => Kind::UpstreamTls,
                None => Kind::UpstreamConnect,
            };
            Error::new(kind, error.to_string())
        })?;
    // HTTP/2 over TLS requires ALPN (RFC 9113, section 3.2); HTTP/1.1 does not.
    if protocol == Protocol::H2 && stream.alpn() != Some(alpn.as_bytes()) {
        let detail = "it does not agree on HTTP/2 (ALPN): set protocol: http1";
        return Err(Error::new(Kind::UpstreamTls, detail));
    }
    Ok((stream, Some(config)))
}

const fn alpn(protocol: Protocol) -> Alpn {
    match protocol {
        Protocol::Http1 => Alpn::Http1,
        Protocol::H2 => Alpn::H2,
    }
}

async fn connect_tcp(endpoint: &Endpoint, settings: &Upstream, until: Instant) -> Result<TcpStream, Error> {
    let resolved = tokio::time::timeout_at(until, endpoint.addresses.get(settings.resolve_interval)).await;
    let addresses = resolved
        .map_err(|_| Error::new(Kind::UpstreamDns, "the name was not resolved in time"))?
        .map_err(|why| Error::new(Kind::UpstreamDns, why))?;
    let count = addresses.len();
    let first = if count > 1 { fastrand::usize(..count) } else { 0 };
    let mut last_error = Error::new(Kind::UpstreamConnect, "no address was tried");
    for (tried, address) in addresses.iter().cycle().skip(first).take(count).enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / (count - tried) as u32;
        match connect_address(*address, share).await {
            Ok(stream) => return Ok(stream),
            Err((kind, why)) => last_error = Error::new(kind, format!("{address}: {why}")),
        }
    }
    Err(last_error)
}

async fn connect_address(address: SocketAddr, timeout: Duration) -> Result<TcpStream, (Kind, String)> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        // The gateway writes whole messages, so Nagle's algorithm would only add delay.
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
        Err(_) => Err((Kind::UpstreamConnectTimeout, format!("no connection within {timeout:?}"))),
    }
}
