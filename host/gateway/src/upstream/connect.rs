//! Connects to an endpoint: TCP or a UNIX socket, then TLS if the upstream uses it.
//!
//! This module does not know: HTTP, pools, names.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use rustls::ClientConfig;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::endpoint::{Endpoint, SocketTarget};
use crate::net::Stream;
use crate::net::tls::{ClientTls, Fault, connect_tls, describe, fault};
use witgate_config::{Alpn, Protocol, Upstream};
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::public_address::is_public;

/// The TLS configuration that a connection was made with; none for plain text.
pub(super) type TlsConfig = Option<Arc<ClientConfig>>;

/// Connects within the upstream's `connect_timeout`, which includes the TLS handshake. `protocol`
/// is the one that the connection will carry. The error's detail does not name the endpoint.
pub(super) async fn connect(
    endpoint: &Endpoint,
    settings: &Upstream,
    tls: Option<&ClientTls>,
    protocol: Protocol,
) -> Result<(Stream, TlsConfig), Error> {
    let until = Instant::now() + settings.connect_timeout;
    let stream = match &endpoint.socket {
        SocketTarget::Tcp(address) => connect_tcp(*address, settings, until).await?,
        SocketTarget::Unix(path) => return connect_unix(path, until).await.map(|stream| (stream, None)),
    };
    let Some(tls) = tls else { return Ok((Stream::Tcp(stream), None)) };
    let (config, alpn) = (tls.current(), alpn(protocol).id());
    let name =
        tls.name_for(&endpoint.address.host).map_err(|error| Error::new(Kind::UpstreamTls, error.to_string()))?;
    let handshake = tokio::time::timeout_at(until, connect_tls(stream, config.clone(), name, alpn)).await;
    let stream = handshake
        .map_err(|_| {
            let detail = format!("no TLS handshake within {:?}", settings.connect_timeout);
            Error::new(Kind::UpstreamConnectTimeout, detail)
        })?
        .map_err(|error| {
            let kind = match fault(&error) {
                Some(Fault::Certificate) => Kind::UpstreamCertificate,
                Some(Fault::Protocol) => Kind::UpstreamTls,
                None => Kind::UpstreamConnect,
            };
            Error::new(kind, describe(&error))
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

async fn connect_tcp(address: SocketAddr, settings: &Upstream, until: Instant) -> Result<TcpStream, Error> {
    // The address that was resolved is the one that is connected to: between this check and the
    // connection, DNS cannot change it.
    let is_allowed = |networks: &Vec<IpNet>| networks.iter().any(|network| network.contains(&address.ip()));
    if settings.public_or.as_ref().is_some_and(|networks| !is_public(address.ip()) && !is_allowed(networks)) {
        let detail =
            format!("{} is not a public address, and the upstream is for direct calls of filters", address.ip());
        return Err(Error::new(Kind::UpstreamForbidden, detail));
    }
    let connected = tokio::time::timeout_at(until, TcpStream::connect(address)).await;
    // The gateway writes whole messages, so Nagle's algorithm would only add delay.
    match connected.map(|connected| connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream))) {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let kind = match error.kind() {
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Kind::UpstreamUnroutable,
                ErrorKind::TimedOut => Kind::UpstreamConnectTimeout,
                _ => Kind::UpstreamConnect,
            };
            Err(Error::new(kind, error.to_string()))
        }
        Err(_) => {
            let detail = format!("no connection within {:?}", settings.connect_timeout);
            Err(Error::new(Kind::UpstreamConnectTimeout, detail))
        }
    }
}

async fn connect_unix(path: &Path, until: Instant) -> Result<Stream, Error> {
    match tokio::time::timeout_at(until, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => Ok(Stream::Unix(stream)),
        Ok(Err(error)) => Err(Error::new(Kind::UpstreamConnect, error.to_string())),
        Err(_) => Err(Error::new(Kind::UpstreamConnectTimeout, "the socket accepts no connection in time")),
    }
}
