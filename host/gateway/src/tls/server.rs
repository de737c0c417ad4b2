//! TLS of a listener: the rustls configuration of handshakes, and the information about a
//! connection.
//!
//! A change replaces the whole configuration through one pointer, so a handshake uses one
//! consistent set of certificates and authorities. Sessions can be resumed after a change of
//! certificates, because the ticket keys stay. They cannot be resumed after a change of the client
//! authorities. The cipher suites are the defaults of rustls; for TLS 1.2 these are ECDHE with AEAD
//! only. Early data is off, because it can be replayed (RFC 8470).
//!
//! This module does not know: files, when they change, the deadlines of sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};

use super::candidates::{Candidates, adds_a_choice};
use super::certificate_info::{CertificateInfo, shown_names};
use super::names::{NameTable, covers_host};
use super::pem::{Authorities, KeyPair};
use super::provider::{provider, versions};
use crate::net::Stream;
use witgate_config::{Alpn, ListenerTls};
use witgate_runtime::exchange::{Certificate, TlsInfo};

/// Sessions of TLS 1.2 clients that do not support tickets.
const SESSIONS_MAX: usize = 1024;

/// TLS of one listener, with the context of the next handshake.
#[derive(Debug)]
pub struct ServerTls {
    /// The listener's name.
    pub listener: Arc<str>,
    current: ArcSwap<TlsContext>,
}

impl ServerTls {
    pub(super) fn new(listener: &str, context: TlsContext) -> Self {
        Self { listener: listener.into(), current: ArcSwap::from_pointee(context) }
    }

    /// The context for a handshake that begins.
    pub fn current(&self) -> Arc<TlsContext> {
        self.current.load_full()
    }

    /// Sets the context of the next handshakes. Handshakes in progress keep theirs.
    pub(super) fn replace(&self, context: TlsContext) {
        self.current.store(Arc::new(context));
    }
}

/// A consistent set of certificates and settings.
#[derive(Debug)]
pub struct TlsContext {
    /// The configuration for rustls.
    pub config: Arc<ServerConfig>,
    by_name: Arc<NameTable<Candidates>>,
    /// Certificates that no client can get, each as a sentence.
    pub(super) unreachable: Vec<String>,
}

impl TlsContext {
    /// Builds the context from a listener's settings and files. `clients` are the authorities of
    /// client certificates.
    pub(super) fn new(
        settings: &ListenerTls,
        key_pairs: &[Arc<KeyPair>],
        clients: Option<&Authorities>,
        resumption: Resumption,
    ) -> Result<Self, String> {
        let by_name = Arc::new(candidates_by_name(key_pairs).ok_or("there is no certificate")?);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| error.to_string())?;
        let builder = match (&settings.client_auth, clients) {
            (Some(auth), Some(clients)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots.clone(), provider());
                let verifier = if auth.required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ResolveByName(by_name.clone())));
        config.alpn_protocols = settings.protocols.iter().map(|protocol| protocol.id().into()).collect();
        // All suites are secure. A fixed order satisfies scanners, which expect the server's order.
        config.ignore_client_order = true;
        if let Some(tickets) = resumption.tickets {
            config.ticketer = tickets;
        }
        config.session_storage = resumption.sessions;
        Ok(Self { config: Arc::new(config), by_name, unreachable: unreachable(key_pairs) })
    }

    /// Describes a connection after its handshake with this context.
    ///
    /// # Errors
    /// A message if the connection must not be used. A resumed session presents the certificate of
    /// its first handshake, which may have expired since.
    pub fn info(&self, stream: &Stream, now: SystemTime) -> Result<TlsInfo, String> {
        let Stream::Server(stream) = stream else { return Err("not a TLS connection of a client".into()) };
        let connection = stream.get_ref().1;
        let peer = match connection.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(certificate) => {
                let info = CertificateInfo::read(certificate)?;
                if info.not_after < now {
                    return Err("the client's certificate expired after its session began".into());
                }
                let CertificateInfo { subject, alternative_names, sha256, .. } = info;
                Some(Certificate { subject, alternative_names, sha256 })
            }
        };
        let server_name = connection.server_name().map(str::to_ascii_lowercase);
        Ok(TlsInfo {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            alpn: [Alpn::H2, Alpn::Http1]
                .map(Alpn::id)
                .into_iter()
                .find(|id| connection.alpn_protocol() == Some(id.as_bytes())),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            names: self.by_name.find(server_name.as_deref()).hosts.clone(),
            server_name,
            peer,
        })
    }
}

/// Ticket keys and the session store of one listener, shared by all threads.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    /// `None` if the system provides no randomness for the keys.
    tickets: Option<Arc<dyn ProducesTickets>>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Resumption {
    /// New keys and an empty store: no earlier session can be resumed.
    pub(super) fn new() -> Self {
        Self { tickets: aws_lc_rs::Ticketer::new().ok(), sessions: ServerSessionMemoryCache::new(SESSIONS_MAX) }
    }
}

/// Whether a request for this authority may use this connection (RFC 9110, section 7.4).
///
/// The authority must be the server name of the handshake, or another name of the certificate that
/// the client received (RFC 9113, section 9.1.1). A client without a server name connected to an
/// address and may request any host.
pub fn covers_authority(tls: &TlsInfo, authority: &str) -> bool {
    let Some(name) = tls.server_name.as_deref() else { return true };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    host.is_empty() || host.eq_ignore_ascii_case(name) || covers_host(&tls.names, host)
}

/// The certificates of each name. The default, for clients that ask for none of the names, are the
/// first certificate and those with the same names.
fn candidates_by_name(key_pairs: &[Arc<KeyPair>]) -> Option<NameTable<Candidates>> {
    let first = key_pairs.first()?;
    let alike = key_pairs.iter().filter(|pair| pair.info.dns_names().eq(first.info.dns_names())).cloned().collect();
    let mut by_name: BTreeMap<&str, Vec<Arc<KeyPair>>> = BTreeMap::new();
    for pair in key_pairs {
        pair.info.dns_names().for_each(|name| by_name.entry(name).or_default().push(pair.clone()));
    }
    let named = by_name.into_iter().filter_map(|(name, pairs)| Some((Candidates::new(pairs)?, vec![name.to_owned()])));
    NameTable::new(Candidates::new(alike).map(|default| (default, vec![])).into_iter().chain(named))
}

/// The certificates that no client can get: for each of their names, earlier certificates serve
/// every client that could verify them.
fn unreachable(key_pairs: &[Arc<KeyPair>]) -> Vec<String> {
    let mut earlier: BTreeMap<&str, Vec<&KeyPair>> = BTreeMap::new();
    let mut found = vec![];
    for (index, pair) in key_pairs.iter().enumerate() {
        let mut is_reachable = index == 0;
        for name in pair.info.dns_names() {
            let earlier = earlier.entry(name).or_default();
            is_reachable |= adds_a_choice(pair, earlier);
            earlier.push(pair);
        }
        if !is_reachable {
            found.push(format!(
                "no client gets certificates[{index}] ({}): earlier certificates have its names and the same kind of \
                 key: remove it, or give it a key of another kind (RSA, ECDSA)",
                shown_names(&pair.info)
            ));
        }
    }
    found
}

/// Selects the certificate by the server name of the handshake and the client's algorithms.
#[derive(Debug)]
struct ResolveByName(Arc<NameTable<Candidates>>);

impl ResolvesServerCert for ResolveByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.find(hello.server_name()).choose(hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_covers_the_names_of_its_certificate() {
        let tls = |server_name: Option<&str>| TlsInfo {
            version: "TLSv1.3",
            server_name: server_name.map(str::to_owned),
            alpn: None,
            resumed: false,
            peer: None,
            names: ["a.test".to_owned(), "*.b.test".to_owned()].into(),
        };
        for (name, authority, expected) in [
            (Some("a.test"), "a.test", true),
            (Some("a.test"), "A.test:8443", true),
            (Some("a.test"), "a.test.", true),
            (Some("a.test"), "x.b.test:443", true),
            (Some("a.test"), "c.test", false),
            (Some("a.test"), "y.x.b.test", false),
            (Some("a.test"), "[::1]:443", false),
            (Some("unknown.test"), "unknown.test", true),
            (Some("unknown.test"), "other.test", false),
            (Some("a.test"), "", true),
            (None, "anything.test", true),
        ] {
            assert_eq!(covers_authority(&tls(name), authority), expected, "{name:?} {authority}");
        }
    }
}
