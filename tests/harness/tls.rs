//! Certificates issued by a test's own authority, and TLS clients that report their handshake.
//!
//! This module does not know: the gateway's TLS configuration, its code.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion, crypto::aws_lc_rs, version,
};

use crate::Client;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate without its issuer.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
    /// SHA-256 of the certificate's DER, hexadecimal.
    pub sha256: String,
}

impl Authority {
    /// Creates an authority with this common name.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = common_name(name);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for host names or IP addresses. The first is the common name.
    pub fn issue(&self, names: &[&str]) -> Result<IssuedCertificate> {
        self.issue_with(names, |_| {})
    }

    /// Issues a certificate whose parameters `change` alters before the signature.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Result<IssuedCertificate> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name = common_name(names.first().map_or("nobody", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(IssuedCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            sha256: sha256(certificate.der())?,
        })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Computed by another program, so that the gateway's implementation is tested.
fn sha256(der: &[u8]) -> Result<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(der)?;
    let output = String::from_utf8(child.wait_with_output()?.stdout)?;
    Ok(output.split(' ').next().unwrap_or_default().to_owned())
}

/// The TLS settings of a client, and its session cache.
pub struct TlsClient {
    config: ClientConfig,
}

/// The result of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The negotiated version.
    pub version: Option<ProtocolVersion>,
    /// The protocol negotiated by ALPN.
    pub alpn: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// SHA-256 of the server's certificate, hexadecimal.
    pub certificate: String,
}

impl TlsClient {
    /// A client that trusts this authority, with TLS 1.2 and 1.3, no ALPN and no certificate.
    pub fn new(authority: &Authority) -> Result<Self> {
        Self::with(authority, &[&version::TLS13, &version::TLS12], None)
    }

    /// The same with only this TLS version.
    pub fn with_version(authority: &Authority, version: &'static SupportedProtocolVersion) -> Result<Self> {
        Self::with(authority, &[version], None)
    }

    /// The same with this client certificate.
    pub fn with_certificate(authority: &Authority, identity: &IssuedCertificate) -> Result<Self> {
        Self::with(authority, &[&version::TLS13, &version::TLS12], Some(identity))
    }

    /// A client with these TLS versions and this client certificate.
    pub fn with(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&IssuedCertificate>,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
            )?,
        };
        Ok(Self { config })
    }

    /// Offers these protocols by ALPN.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Disables session resumption.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        self.config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
        self
    }

    /// The rustls configuration, for asynchronous clients.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::new(self.config.clone())
    }

    /// Connects and completes the handshake. An IP address as `name` is verified but not sent as
    /// SNI (RFC 6066).
    pub fn connect(&self, address: SocketAddr, name: &str) -> Result<(Client, Handshake)> {
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
        tcp.set_nodelay(true)?;
        let mut connection = ClientConnection::new(self.config(), ServerName::try_from(name.to_owned())?)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        let certificate = connection.peer_certificates().and_then(<[_]>::first).context("no certificate")?;
        let handshake = Handshake {
            version: connection.protocol_version(),
            alpn: connection.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate: sha256(certificate)?,
        };
        Ok((Client::over(StreamOwned::new(connection, tcp), name), handshake))
    }
}
