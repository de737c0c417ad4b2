//! The TLS handshake over a TCP connection, as a client and as a server.
//!
//! The caller (`tls`) decides which certificates are trusted and presented, and passes a finished
//! rustls configuration. A connection keeps the configuration that it began with. The caller also
//! limits the time. This module does not know: files, configuration, HTTP.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Stream;

/// The TLS settings of one upstream. A reload of certificate files replaces them as a whole.
#[derive(Debug)]
pub struct ClientTls {
    current: ArcSwap<ClientConfig>,
    /// The name that the upstream's certificate must be valid for, if it is not the endpoint's
    /// host.
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Starts with a first configuration.
    pub fn new(config: Arc<ClientConfig>, server_name: Option<ServerName<'static>>) -> Self {
        Self { current: ArcSwap::new(config), server_name }
    }

    /// The configuration of new connections. A pooled connection with another configuration trusts
    /// or presents certificates that were replaced since.
    pub fn current(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }

    /// Replaces the configuration of new connections.
    pub fn replace(&self, config: Arc<ClientConfig>) {
        self.current.store(config);
    }

    /// The name that the gateway requests (SNI) and verifies: the configured one, else the
    /// endpoint's host (RFC 9110, section 4.3.4). Fails if the host cannot be a name in a
    /// certificate.
    pub fn name_for(&self, host: &str) -> io::Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host cannot be a name in a certificate")),
        }
    }
}

/// Makes a TLS connection to a server and offers only `protocol` by ALPN. The server's certificate
/// must be valid for `name`. [`fault`] finds the TLS error inside an I/O error.
pub async fn connect_tls(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    protocol: &str,
) -> io::Result<Stream> {
    let connector = TlsConnector::from(config);
    let connected = connector.with_alpn(vec![protocol.as_bytes().to_vec()]).connect(name, stream).await?;
    Ok(Stream::Client(Box::new(connected)))
}

/// Makes a TLS connection to a server that speaks one protocol only, so that none is negotiated.
pub async fn connect_tls_without_alpn(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<Stream> {
    Ok(Stream::Client(Box::new(TlsConnector::from(config).connect(name, stream).await?)))
}

/// Accepts a TLS connection from a client.
pub async fn accept_tls(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Stream> {
    Ok(Stream::Server(Box::new(TlsAcceptor::from(config).accept(stream).await?)))
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer's certificate is not trusted, expired or for another name.
    Certificate,
    /// Another TLS error: no common version, a malformed message, an alert from the peer.
    Protocol,
}

/// The TLS failure inside an I/O error. None if the error came from the network.
pub fn fault(error: &io::Error) -> Option<Fault> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Fault::Certificate,
        _ => Fault::Protocol,
    })
}

/// A failed handshake in words. The library's own text follows, because it has the details.
pub fn describe(error: &io::Error) -> String {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else { return error.to_string() };
    let words = match why {
        UnknownIssuer => "no trusted authority issued the certificate",
        Expired | ExpiredContext { .. } => "the certificate has expired",
        NotValidYet | NotValidYetContext { .. } => "the certificate is not valid yet",
        NotValidForName | NotValidForNameContext { .. } => "the certificate is for another name",
        _ if error.to_string().contains("CaUsedAsEndEntity") => {
            "the certificate is that of an authority and not that of a server"
        }
        _ => return error.to_string(),
    };
    format!("{words} ({error})")
}
