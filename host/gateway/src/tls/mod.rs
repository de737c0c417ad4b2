//! TLS as values: from the bytes of certificates and keys to what a handshake uses, and from a handshake to what filters and the log may know.
//!
//! A listener's configuration is built whole and swapped by one pointer: a handshake sees one consistent set of certificates and authorities, the newest. Sessions are
//! resumed across a change of certificates (the tickets' keys stay), but never across a change of the authority that clients are verified by. Suites are rustls' own: in
//! TLS 1.2 only ECDHE with AEAD. Early data is off: a request in it could be replayed (RFC 8470). Must not know: files, sockets' deadlines, who rotates what.

mod certificate;
mod names;
pub mod reload;
mod watched_files;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
    WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};

pub use self::certificate::Facts;
use self::names::{Names, cover};
use crate::net::Stream;
use witgate_config::{Alpn, ListenerTls, TlsVersion};
use witgate_runtime::exchange::{Certificate, TlsInfo};

/// Sessions of TLS 1.2 clients that take no tickets.
const SESSIONS_MAX: usize = 1024;
/// More certificates than one file has.
const CHAIN_MAX: usize = 2000;

/// Why a file's content is not taken.
#[derive(Debug)]
pub struct Refused {
    /// Which of the files: 0 the certificates, 1 the key.
    pub file: usize,
    /// A short word of a fixed list, for metrics.
    pub reason: &'static str,
    /// What is wrong and what to do. Never says anything of a key's content.
    pub message: String,
}

impl Refused {
    /// A refusal with its reason.
    pub fn new(file: usize, reason: &'static str, message: impl Into<String>) -> Self {
        Self { file, reason, message: message.into() }
    }
}

/// A certificate with its chain and its key, which belong together.
#[derive(Debug)]
pub struct Pair {
    /// Of the certificate itself.
    pub facts: Facts,
    names: Arc<[String]>,
    key: Arc<CertifiedKey>,
}

impl Pair {
    /// Reads PEM texts: the chain, its first certificate first, and the key.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, Refused> {
        let chain = certificates(chain)?;
        let facts = Facts::read(&chain[0]).map_err(|why| Refused::new(0, "garbled", why))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => Refused::new(
                1,
                "no-key",
                "no private key in it (PEM, not encrypted: openssl pkey -in OLD -out NEW decrypts one)",
            ),
            _ => Refused::new(1, "garbled", "not PEM, or cut off: write the whole file, then rename it into place"),
        })?;
        let key = provider().key_provider.load_private_key(key).map_err(|_| {
            Refused::new(1, "garbled", "no private key that can be used: RSA (2048 bits or more), ECDSA or Ed25519")
        })?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err(Refused::new(
                    1,
                    "mismatch",
                    "the key does not belong to the first certificate of the chain: replace both files, the leaf certificate first",
                ));
            }
            Err(error) => return Err(Refused::new(0, "garbled", error.to_string())),
        }
        Ok(Self { names: facts.dns_names().map(str::to_owned).collect(), facts, key: Arc::new(key) })
    }
}

/// Whom to trust.
#[derive(Debug)]
pub struct Authorities {
    /// Of each certificate; empty for the system's roots.
    pub facts: Vec<Facts>,
    roots: Arc<RootCertStore>,
}

impl Authorities {
    /// Reads a PEM text: all certificates in it, at least one.
    pub fn read(bundle: &[u8]) -> Result<Self, Refused> {
        let (mut roots, mut facts) = (RootCertStore::empty(), vec![]);
        for certificate in certificates(bundle)? {
            facts.push(Facts::read(&certificate).map_err(|why| Refused::new(0, "garbled", why))?);
            roots.add(certificate).map_err(|error| Refused::new(0, "garbled", error.to_string()))?;
        }
        Ok(Self { facts, roots: Arc::new(roots) })
    }

    /// The roots of a system, where those that cannot be read do not matter; none where there is no usable one.
    pub fn of_system(certificates: Vec<CertificateDer<'static>>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(certificates);
        (usable > 0).then(|| Self { facts: vec![], roots: Arc::new(roots) })
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Refused> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).take(CHAIN_MAX).collect();
    match found {
        Ok(found) if found.is_empty() => Err(Refused::new(0, "no-certificate", "no certificate in it (PEM)")),
        Ok(found) => Ok(found),
        Err(_) => {
            Err(Refused::new(0, "garbled", "not PEM, or cut off: write the whole file, then rename it into place"))
        }
    }
}

/// What lets a client come back without a full handshake; shared by all threads, of one listener only.
#[derive(Clone, Debug)]
pub struct Resumption {
    /// None where the system has no randomness to make their keys from.
    tickets: Option<Arc<dyn ProducesTickets>>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Resumption {
    /// Fresh keys: no earlier session can be resumed.
    pub fn new() -> Self {
        Self { tickets: aws_lc_rs::Ticketer::new().ok(), sessions: ServerSessionMemoryCache::new(SESSIONS_MAX) }
    }
}

impl Default for Resumption {
    fn default() -> Self {
        Self::new()
    }
}

/// TLS of one listener: what the next handshake uses.
#[derive(Debug)]
pub struct ServerTls {
    /// The listener's name.
    pub listener: Arc<str>,
    current: ArcSwap<Served>,
}

impl ServerTls {
    /// With a first set.
    pub fn new(listener: &str, served: Served) -> Self {
        Self { listener: listener.into(), current: ArcSwap::from_pointee(served) }
    }

    /// For one handshake.
    pub fn current(&self) -> Arc<Served> {
        self.current.load_full()
    }

    /// The next handshake uses this.
    pub fn replace(&self, served: Served) {
        self.current.store(Arc::new(served));
    }
}

/// A consistent set of certificates and terms.
#[derive(Debug)]
pub struct Served {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    pairs: Arc<Names<Arc<Pair>>>,
}

impl Served {
    /// Puts a listener's terms and files together. `clients` is who signs the certificates of clients, where they are asked for.
    pub fn new(
        terms: &ListenerTls,
        pairs: impl IntoIterator<Item = Arc<Pair>>,
        clients: Option<&Authorities>,
        resumption: Resumption,
    ) -> Result<Self, String> {
        let named = pairs.into_iter().map(|pair| (pair.clone(), pair.names.to_vec()));
        let pairs = Arc::new(Names::new(named).ok_or("there is no certificate")?);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(terms.min_version))
            .map_err(|error| error.to_string())?;
        let builder = match (&terms.client_auth, clients) {
            (Some(auth), Some(clients)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots.clone(), provider());
                let verifier = if auth.required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(pairs.clone())));
        config.alpn_protocols = terms.protocols.iter().map(|protocol| protocol.id().into()).collect();
        // All are good; the order is rustls' all the same, so that a scan of the suites finds one.
        config.ignore_client_order = true;
        if let Some(tickets) = resumption.tickets {
            config.ticketer = tickets;
        }
        config.session_storage = resumption.sessions;
        Ok(Self { config: Arc::new(config), pairs })
    }

    /// What a finished handshake with this set says. An error where the connection must not be used: a resumed session shows the
    /// certificate of its first handshake, which may be out of date by now.
    pub fn info(&self, stream: &Stream, now: SystemTime) -> Result<TlsInfo, String> {
        let Stream::Server(stream) = stream else { return Err("not a TLS connection of a client".into()) };
        let connection = stream.get_ref().1;
        let peer = match connection.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(certificate) => {
                let facts = Facts::read(certificate)?;
                if facts.not_after < now {
                    return Err("the client's certificate is out of date since its session began".into());
                }
                let Facts { subject, alternative_names, sha256, .. } = facts;
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
            names: self.pairs.find(server_name.as_deref()).names.clone(),
            server_name,
            peer,
        })
    }
}

/// Whether a request for this authority may come over this connection (RFC 9110, section 7.4): the name that the client asked for, or another one that
/// the certificate which it saw is good for (RFC 9113, section 9.1.1). A client that asked for no name chose by address: any host is its own affair.
pub fn serves(tls: &TlsInfo, authority: &str) -> bool {
    let Some(name) = tls.server_name.as_deref() else { return true };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    host.is_empty() || host.eq_ignore_ascii_case(name) || cover(&tls.names, host)
}

/// TLS to an upstream. What is spoken over it is each connection's own affair (ALPN).
pub fn client_config(
    min_version: TlsVersion,
    trusted: &Authorities,
    identity: Option<&Pair>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(min_version))
        .map_err(|error| error.to_string())?
        .with_root_certificates(trusted.roots.clone());
    Ok(Arc::new(match identity {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.key.clone()))),
        None => builder.with_no_client_auth(),
    }))
}

/// Chooses by the name that the client asks for.
#[derive(Debug)]
struct ByName(Arc<Names<Arc<Pair>>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.find(hello.server_name()).key.clone())
    }
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match min {
        TlsVersion::V12 => &ALL,
        TlsVersion::V13 => &ALL[..1],
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn pem(names: &[&str]) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Ok((CertificateParams::new(names)?.self_signed(&key)?.pem(), key.serialize_pem()))
    }

    #[test]
    fn a_pair_is_read_or_refused_with_its_reason() -> anyhow::Result<()> {
        let (certificate, key) = pem(&["a.test"])?;
        let (other, _) = pem(&["a.test"])?;
        let half = &certificate[..certificate.len() / 2];
        let read = |certificate: &str, key: &str| {
            Pair::read(certificate.as_bytes(), key.as_bytes())
                .map_or_else(|refused| (refused.file, refused.reason), |_| (9, "ok"))
        };
        assert_eq!(read(&certificate, &key), (9, "ok"));
        assert_eq!(read(&format!("{certificate}{other}"), &format!("{certificate}{key}")), (9, "ok"));
        assert_eq!(read(&other, &key), (1, "mismatch"));
        assert_eq!(read(&format!("{other}{certificate}"), &key), (1, "mismatch"), "the leaf comes first");
        assert_eq!(read("", &key), (0, "no-certificate"));
        assert_eq!(read("hello", &key), (0, "no-certificate"));
        assert_eq!(read(half, &key), (0, "garbled"));
        assert_eq!(read(&format!("{certificate}{half}"), &key), (0, "garbled"), "a chain that is cut off");
        assert_eq!(read(&certificate.replace("MII", "MIJ"), &key), (0, "garbled"));
        assert_eq!(read("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key), (0, "garbled"));
        assert_eq!(read(&certificate, ""), (1, "no-key"));
        assert_eq!(read(&certificate, &certificate), (1, "no-key"));
        assert_eq!(read(&certificate, &key[..key.len() / 2]), (1, "garbled"));
        assert_eq!(
            read(&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            (1, "garbled")
        );
        Ok(())
    }

    #[test]
    fn authorities_are_all_or_none() -> anyhow::Result<()> {
        let ((one, _), (two, _)) = (pem(&["a.test"])?, pem(&["b.test"])?);
        assert_eq!(Authorities::read(format!("{one}{two}").as_bytes()).map(|all| all.facts.len()).ok(), Some(2));
        let cut = format!("{one}{}", &two[..100]);
        assert_eq!(Authorities::read(cut.as_bytes()).err().map(|refused| refused.reason), Some("garbled"));
        assert!(Authorities::of_system(vec![]).is_none());
        Ok(())
    }

    #[test]
    fn a_connection_serves_what_its_certificate_names() {
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
            assert_eq!(serves(&tls(name), authority), expected, "{name:?} {authority}");
        }
    }
}
