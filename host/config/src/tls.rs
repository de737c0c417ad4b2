//! `tls:` of a listener and of an upstream: the types and how they are read.
//!
//! Files are named here and read by `control/certs.rs`, since their content changes while the gateway runs and this must not be touched for it. Must not
//! know: what is in the files.

use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;

use super::EndpointAddress;
use super::read::Section;

/// More pairs than a listener can have: all are read at every look.
const CERTIFICATES_MAX: usize = 1000;

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// 1 to 1000; the first is shown to clients that name none of the certificates' names.
    pub certificates: Vec<CertificateFiles>,
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// Whether clients show a certificate. Default: they are not asked.
    pub client_auth: Option<ClientAuth>,
    /// By ALPN, the preferred first. Default h2, then HTTP/1.1.
    pub protocols: Vec<Alpn>,
}

/// A certificate chain and its key, PEM. Relative to the config file's folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The certificate first, then what leads to a root.
    pub certificate: PathBuf,
    /// PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PathBuf,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientAuth {
    /// Who may have signed them, PEM.
    pub ca: PathBuf,
    /// Whether a client without one is refused. Default true (`mode: required`).
    pub required: bool,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2, with ECDHE and AEAD suites only.
    V12,
    /// 1.3.
    V13,
}

/// What is spoken over TLS (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http1,
}

impl Alpn {
    /// Its registered name.
    pub const fn id(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http1 => "http/1.1",
        }
    }
}

/// TLS towards an upstream whose endpoints are `https://`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// Who may have signed the upstream's certificate, PEM. Default: the roots of the system.
    pub ca: Option<PathBuf>,
    /// The name that the certificate must have. Default the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// What the gateway shows when it is asked. Default nothing.
    pub identity: Option<CertificateFiles>,
    /// Default 1.2.
    pub min_version: TlsVersion,
}

impl ListenerTls {
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(CertificateFiles::both);
        pairs.chain(self.client_auth.iter().map(|auth| auth.ca.as_path()))
    }
}

impl UpstreamTls {
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.ca.iter().map(PathBuf::as_path).chain(self.identity.iter().flat_map(CertificateFiles::both))
    }
}

impl CertificateFiles {
    fn both(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }
}

/// Reads `tls:` of a listener.
pub(super) fn listener(section: Section, base: &Path) -> ListenerTls {
    let nodes = section.nodes("certificates");
    if nodes.is_empty() {
        section.error(
            section.line,
            "certificates",
            "is missing or empty: write [{certificate: cert.pem, key: key.pem}], the first for clients that name no host",
        );
    }
    if nodes.len() > CERTIFICATES_MAX {
        section.error(section.line, "certificates", format!("{}: at most {CERTIFICATES_MAX} are read", nodes.len()));
    }
    let mut certificates = vec![];
    for (at, node) in nodes.iter().take(CERTIFICATES_MAX).enumerate() {
        let own = Section::new(Some(node), section.at(&format!("certificates[{at}]")), section.errors);
        certificates.extend(pair(&own, base, true));
        own.finish();
    }
    let tls = ListenerTls {
        certificates,
        min_version: min_version(&section),
        client_auth: client_auth(&section, base),
        protocols: protocols(&section),
    };
    section.finish();
    tls
}

/// Reads `tls:` of an upstream with these endpoints.
pub(super) fn upstream<'a>(
    parent: &Section,
    base: &Path,
    endpoints: impl Iterator<Item = &'a EndpointAddress>,
) -> Option<UpstreamTls> {
    let (secure, plain): (Vec<_>, Vec<_>) = endpoints.partition(|endpoint| endpoint.tls);
    let wanted = !secure.is_empty();
    if wanted && !plain.is_empty() {
        let line = parent.get("endpoints").map_or(parent.line, |node| node.line);
        parent.error(line, "endpoints", "some endpoints are https:// and some http://: make two upstreams");
    }
    let node = parent.get("tls");
    if let Some(node) = node.filter(|_| !wanted) {
        parent.error(node.line, "tls", "has no use: the endpoints are not https://");
    }
    let section = parent.section("tls");
    let tls = UpstreamTls {
        ca: section.text("ca").map(|file| base.join(file)),
        server_name: section.scalar("server_name", server_name),
        identity: pair(&section, base, false),
        min_version: min_version(&section),
    };
    section.finish();
    wanted.then_some(tls)
}

/// `certificate:` and `key:`, which go together.
fn pair(section: &Section, base: &Path, needed: bool) -> Option<CertificateFiles> {
    let (certificate, key) = (section.text("certificate"), section.text("key"));
    if certificate.is_none() && (needed || key.is_some()) {
        section.error(section.line, "certificate", "is missing: write the path of the PEM file with the chain");
    }
    if key.is_none() && (needed || certificate.is_some()) {
        section.error(section.line, "key", "is missing: write the path of the PEM file with the certificate's key");
    }
    Some(CertificateFiles { certificate: base.join(certificate?), key: base.join(key?) })
}

fn min_version(section: &Section) -> TlsVersion {
    let read = section.scalar("min_version", |text| match text {
        "1.2" => Ok(TlsVersion::V12),
        "1.3" => Ok(TlsVersion::V13),
        _ => Err("write 1.2 or 1.3: older versions are not safe".into()),
    });
    read.unwrap_or(TlsVersion::V12)
}

fn client_auth(tls: &Section, base: &Path) -> Option<ClientAuth> {
    let node = tls.get("client_auth")?;
    let section = tls.section("client_auth");
    let ca = section.text("ca");
    if ca.is_none() {
        section.error(
            node.line,
            "ca",
            "is missing: write the path of the PEM file with the clients' certificate authority",
        );
    }
    let mode = section.scalar("mode", |text| match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err("write required or optional".into()),
    });
    section.finish();
    Some(ClientAuth { ca: base.join(ca?), required: mode.unwrap_or(true) })
}

fn protocols(section: &Section) -> Vec<Alpn> {
    let read = section.list("protocols", |text| match text {
        "h2" => Ok(Alpn::H2),
        "http/1.1" => Ok(Alpn::Http1),
        _ => Err("write h2 or http/1.1".into()),
    });
    let mut protocols: Vec<Alpn> = vec![];
    for one in read {
        if !protocols.contains(&one) {
            protocols.push(one);
        }
    }
    if protocols.is_empty() { vec![Alpn::H2, Alpn::Http1] } else { protocols }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_ascii_lowercase())
        .map_err(|_| "write a name that a certificate can have, such as api.example.com".into())
}
