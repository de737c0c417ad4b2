//! The client of a request: its address and what its TLS handshake showed.
//!
//! This module does not know: which proxies are trusted, how a handshake works.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HeaderValue;

/// The client of a request: the peer of the connection, or the client that a trusted proxy names.
#[derive(Debug, Clone)]
pub struct Client {
    /// The address. The port is 0 if a trusted proxy named only the IP address.
    pub address: SocketAddr,
    /// The IP address as a field value, made once per connection.
    pub ip_text: HeaderValue,
    /// What the TLS handshake showed. `None` without TLS.
    pub tls: Option<Arc<TlsInfo>>,
}

/// A TLS connection, as filters and the log see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// The negotiated protocol: `h2` or `http/1.1`.
    pub alpn: Option<&'static str>,
    /// Whether the handshake resumed an earlier session.
    pub resumed: bool,
    /// The client's verified certificate.
    pub peer: Option<Certificate>,
    /// The hosts that the gateway's certificate covers, in lower case.
    pub names: Arc<[String]>,
}

/// A verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as RFC 4514 text.
    pub subject: String,
    /// The alternative names, each with its kind: `dns:…`, `uri:…`, `email:…`, `ip:…`.
    pub alternative_names: Vec<String>,
    /// The SHA-256 of the DER form, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl Client {
    /// A client without TLS.
    pub fn new(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical().to_string();
        // The text of an address is always a valid field value.
        let ip_text = HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("unknown"));
        Self { address, ip_text, tls: None }
    }
}
