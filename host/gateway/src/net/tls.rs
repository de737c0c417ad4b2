//! From a TCP connection to a TLS one, either side: the handshake and nothing else.
//!
//! What is trusted and shown is decided elsewhere (`stage/tls.rs`) and arrives as a finished rustls configuration; a connection keeps the one that it
//! began with. No deadline here: whoever waits sets it. Must not know: files, configuration, HTTP.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Stream;

/// How to speak TLS to one upstream; the newest files' content, replaced as a whole.
#[derive(Debug)]
pub struct ClientTls {
    current: ArcSwap<ClientConfig>,
    /// The name that the upstream's certificate must have, where it is not the endpoint's host.
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// With a first configuration.
    pub fn new(config: Arc<ClientConfig>, server_name: Option<ServerName<'static>>) -> Self {
        Self { current: ArcSwap::new(config), server_name }
    }

    /// What a new connection uses. A kept connection made with another one than this trusts or shows something that was since replaced.
    pub fn current(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }

    /// New connections use this from now on.
    pub fn replace(&self, config: Arc<ClientConfig>) {
        self.current.store(config);
    }

    /// The name to ask for and to verify: the configured one, else the endpoint's host (RFC 9110, section 4.3.4).
    pub fn name_for(&self, host: &str) -> io::Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host is no name that a certificate has")),
        }
    }
}

/// Speaks TLS to a server, and by ALPN nothing but `protocol`. The server's certificate must be good for `name`; an error of TLS is found by [`fault`].
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

/// Speaks TLS to a client.
pub async fn accept_tls(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Stream> {
    Ok(Stream::Server(Box::new(TlsAcceptor::from(config).accept(stream).await?)))
}

/// Who is at fault when a handshake fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The other side's certificate: not trusted, expired, for another name.
    Certificate,
    /// Anything else that TLS says: no common version, a broken message, an alert from the other side.
    Protocol,
}

/// What TLS has to do with an error; none where it came from the network.
pub fn fault(error: &io::Error) -> Option<Fault> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Fault::Certificate,
        _ => Fault::Protocol,
    })
}
