//! `tls:` of a listener and of an upstream.
//!
//! The configuration only names the files with certificates and keys: their content changes while
//! the gateway runs and must not require an edit of gateway.yaml. This module does not know: what
//! is in the files, who reads them.

use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;

use crate::yaml::Section;

/// The gateway checks all certificate files at every interval, so their number has a bound.
const CERTIFICATES_MAX: usize = 1000;

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// 1 to 1000. The first serves clients whose server name matches no certificate.
    pub certificates: Vec<CertificateFiles>,
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// Certificates of clients. Default: clients are not asked for one.
    pub client_auth: Option<ClientAuth>,
    /// ALPN protocols, the preferred first. Default h2, then HTTP/1.1.
    pub protocols: Vec<Alpn>,
}

/// A certificate chain and its key as PEM files. Relative to the folder of gateway.yaml.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The leaf certificate first, then its issuers.
    pub certificate: PathBuf,
    /// PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PathBuf,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientAuth {
    /// A PEM file with the authorities that sign client certificates.
    pub ca: PathBuf,
    /// Whether a client without a certificate is refused. Default true (`mode: required`).
    pub required: bool,
}

/// The lowest accepted version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2, with ECDHE and AEAD cipher suites only.
    V12,
    /// 1.3.
    V13,
}

/// A protocol over TLS (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http1,
}

impl Alpn {
    /// The registered protocol name.
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
    /// A PEM file with the authorities that sign the upstream's certificate. Default: the
    /// authorities that the system trusts.
    pub ca: Option<PathBuf>,
    /// The name that the upstream's certificate must have. Default: the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// The certificate that the gateway presents if the upstream asks for one. Default none.
    pub identity: Option<CertificateFiles>,
    /// Default 1.2.
    pub min_version: TlsVersion,
}

impl ListenerTls {
    pub(crate) fn read(section: &Section, base: &Path) -> Self {
        let nodes = section.nodes("certificates");
        if nodes.is_empty() {
            let message = "is missing or empty: write [{certificate: cert.pem, key: key.pem}], the first for clients that name no host";
            section.error(section.line(), "certificates", message);
        }
        if nodes.len() > CERTIFICATES_MAX {
            let message = format!("{} certificates: at most {CERTIFICATES_MAX} are allowed", nodes.len());
            section.error(section.line(), "certificates", message);
        }
        let nodes = nodes.iter().take(CERTIFICATES_MAX).enumerate();
        let pair = |(index, node)| {
            section.item("certificates", index, node, |section| CertificateFiles::read(section, base, true))
        };
        Self {
            certificates: nodes.filter_map(pair).collect(),
            min_version: TlsVersion::read(section),
            client_auth: section.optional("client_auth", |section| ClientAuth::read(section, base)).flatten(),
            protocols: protocols(section),
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(CertificateFiles::both);
        pairs.chain(self.client_auth.iter().map(|auth| auth.ca.as_path()))
    }
}

impl UpstreamTls {
    pub(crate) fn read(section: &Section, base: &Path) -> Self {
        Self {
            ca: section.file("ca", base),
            server_name: section.scalar("server_name", server_name),
            identity: CertificateFiles::read(section, base, false),
            min_version: TlsVersion::read(section),
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.ca.iter().map(PathBuf::as_path).chain(self.identity.iter().flat_map(CertificateFiles::both))
    }
}

impl CertificateFiles {
    /// `certificate:` and `key:`. If one of them is written, or if they are `required`, both must
    /// be there.
    fn read(section: &Section, base: &Path, required: bool) -> Option<Self> {
        let (certificate, key) = (section.file("certificate", base), section.file("key", base));
        if required || key.is_some() {
            section.require("certificate", "write the path of the PEM file with the chain");
        }
        if required || certificate.is_some() {
            section.require("key", "write the path of the PEM file with the certificate's key");
        }
        Some(Self { certificate: certificate?, key: key? })
    }

    fn both(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }
}

impl ClientAuth {
    fn read(section: &Section, base: &Path) -> Option<Self> {
        section.require("ca", "write the path of the PEM file with the clients' certificate authority");
        let required = section.choice("mode", &[("required", true), ("optional", false)], "write required or optional");
        Some(Self { ca: section.file("ca", base)?, required: required.unwrap_or(true) })
    }
}

impl TlsVersion {
    fn read(section: &Section) -> Self {
        let versions = [("1.2", Self::V12), ("1.3", Self::V13)];
        let version = section.choice("min_version", &versions, "write 1.2 or 1.3: older versions are not safe");
        version.unwrap_or(Self::V12)
    }
}

/// Without duplicates, in the order of the file.
fn protocols(section: &Section) -> Vec<Alpn> {
    let known = [("h2", Alpn::H2), ("http/1.1", Alpn::Http1)];
    let mut protocols: Vec<Alpn> = vec![];
    for protocol in section.choices("protocols", &known, "write h2 or http/1.1") {
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    if protocols.is_empty() { vec![Alpn::H2, Alpn::Http1] } else { protocols }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_ascii_lowercase())
        .map_err(|_| "write a name that a certificate can have, such as api.example.com".into())
}
