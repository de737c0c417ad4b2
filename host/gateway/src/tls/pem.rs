//! Key pairs and authorities, parsed from PEM texts and checked.
//!
//! This module does not know: files, listeners, upstreams.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certificate_info::{CertificateInfo, order_mistake};
use super::provider::provider;

/// Certificates that are read of one file. The largest public bundles have some hundreds.
const CERTIFICATES_MAX: usize = 2000;
const ENCRYPTED: &str = "no private key in it (PEM, not encrypted: openssl pkey -in OLD -out NEW decrypts one)";
const NOT_PEM: &str = "not PEM, or cut off: write the whole file, then rename it into place";

/// Why certificate files are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The file does not exist.
    Missing,
    /// The file cannot be read.
    Unreadable,
    /// The content cannot be parsed.
    Garbled,
    /// The file contains no certificate.
    NoCertificate,
    /// The file contains no private key.
    NoKey,
    /// The key does not belong to the certificate.
    Mismatch,
    /// The certificate is no longer valid.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// rustls refuses the combination.
    Unusable,
}

/// The labels of all reasons.
pub const CERTIFICATE_REASONS: [&str; 9] = [
    Reason::Missing.label(),
    Reason::Unreadable.label(),
    Reason::Garbled.label(),
    Reason::NoCertificate.label(),
    Reason::NoKey.label(),
    Reason::Mismatch.label(),
    Reason::Expired.label(),
    Reason::NotYetValid.label(),
    Reason::Unusable.label(),
];

impl Reason {
    /// The value of the label `reason` in metrics and logs.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Garbled => "garbled",
            Self::NoCertificate => "no-certificate",
            Self::NoKey => "no-key",
            Self::Mismatch => "mismatch",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Unusable => "unusable",
        }
    }
}

/// The refusal of a text.
#[derive(Debug)]
pub(super) struct CertificateError {
    /// The index of the text: 0 for the certificates, 1 for the key.
    pub(super) file: usize,
    /// For metrics.
    pub(super) reason: Reason,
    /// What is wrong and what to do. It never contains a part of a key.
    pub(super) message: String,
}

impl CertificateError {
    pub(super) fn new(file: usize, reason: Reason, message: impl Into<String>) -> Self {
        Self { file, reason, message: message.into() }
    }
}

/// A certificate, its chain and its private key.
#[derive(Debug)]
pub(super) struct KeyPair {
    /// The content of the leaf certificate.
    pub(super) info: CertificateInfo,
    /// The host names and IP addresses of the leaf certificate, in lower case.
    pub(super) hosts: Arc<[String]>,
    pub(super) key: Arc<CertifiedKey>,
    /// What is wrong with the order of the chain.
    pub(super) order_mistake: Option<String>,
}

impl KeyPair {
    /// Parses the chain, leaf certificate first, and its key.
    pub(super) fn read(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let key = without_mark(key);
        let chain = certificates(chain)?;
        let info = CertificateInfo::read(&chain[0]).map_err(|why| CertificateError::new(0, Reason::Garbled, why))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => CertificateError::new(1, Reason::NoKey, ENCRYPTED),
            _ if has(key, b"ENCRYPTED") => CertificateError::new(1, Reason::NoKey, ENCRYPTED),
            _ => CertificateError::new(1, Reason::Garbled, NOT_PEM),
        })?;
        let key = provider().key_provider.load_private_key(key).map_err(|_| {
            CertificateError::new(
                1,
                Reason::Garbled,
                "no supported private key: use RSA (2048 bits or more), ECDSA or Ed25519",
            )
        })?;
        let order_mistake = order_mistake(&chain);
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err(CertificateError::new(
                    1,
                    Reason::Mismatch,
                    "the key does not belong to the first certificate of the chain: replace both files, the leaf certificate first",
                ));
            }
            Err(error) => return Err(CertificateError::new(0, Reason::Garbled, error.to_string())),
        }
        Ok(Self { hosts: info.hosts().map(str::to_owned).collect(), info, key: Arc::new(key), order_mistake })
    }
}

/// Trusted certificate authorities.
#[derive(Debug)]
pub(super) struct Authorities {
    /// The content of each certificate. Empty for the system's roots.
    pub(super) infos: Vec<CertificateInfo>,
    pub(super) roots: Arc<RootCertStore>,
}

impl Authorities {
    /// Parses all certificates of a text. It must contain at least one.
    pub(super) fn read(bundle: &[u8]) -> Result<Self, CertificateError> {
        let (mut roots, mut infos) = (RootCertStore::empty(), vec![]);
        for certificate in certificates(bundle)? {
            infos.push(
                CertificateInfo::read(&certificate).map_err(|why| CertificateError::new(0, Reason::Garbled, why))?,
            );
            roots.add(certificate).map_err(|error| CertificateError::new(0, Reason::Garbled, error.to_string()))?;
        }
        Ok(Self { infos, roots: Arc::new(roots) })
    }

    /// The usable certificates of the system's roots. `None` if there are none.
    pub(super) fn from_system(certificates: Vec<CertificateDer<'static>>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(certificates);
        (usable > 0).then(|| Self { infos: vec![], roots: Arc::new(roots) })
    }
}

/// Without the mark of the byte order, with which some editors begin a file. The parser would take
/// it for a part of the first line, and skip the first certificate.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = without_mark(text);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).take(CERTIFICATES_MAX).collect();
    match found {
        Ok(found) if found.is_empty() => Err(CertificateError::new(0, Reason::NoCertificate, no_certificate(text))),
        Ok(found) => Ok(found),
        Err(_) => Err(CertificateError::new(0, Reason::Garbled, NOT_PEM)),
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// What a file without a certificate seems to be.
fn no_certificate(text: &[u8]) -> &'static str {
    let has = |part: &[u8]| has(text, part);
    if has(b"BEGIN CERTIFICATE-----") {
        "the lines of its certificates are indented: write each of them without spaces in front"
    } else if has(b"BEGIN TRUSTED CERTIFICATE-----") || has(b"BEGIN X509 CERTIFICATE-----") {
        "a certificate with the label of OpenSSL or of old tools: openssl x509 -in OLD -out NEW"
    } else if has(b"PRIVATE KEY-----") {
        "no certificate in it, but a private key: the two paths are probably swapped"
    } else if has(b"BEGIN CERTIFICATE REQUEST-----") || has(b"BEGIN NEW CERTIFICATE REQUEST-----") {
        "a request for a certificate (CSR), not the certificate that an authority made from it"
    } else if text.starts_with(&[0x30, 0x82]) {
        "DER or PKCS#12, not PEM: openssl x509 -inform der -in OLD -out NEW, or openssl pkcs12 -in OLD -nodes -out NEW"
    } else {
        "no certificate in it (PEM)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair as RcgenKeyPair};

    fn pem(names: &[&str]) -> anyhow::Result<(String, String)> {
        let key = RcgenKeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Ok((CertificateParams::new(names)?.self_signed(&key)?.pem(), key.serialize_pem()))
    }

    #[test]
    fn a_key_pair_is_read_or_refused_with_its_reason() -> anyhow::Result<()> {
        let (certificate, key) = pem(&["a.test"])?;
        let (other, _) = pem(&["a.test"])?;
        let half = &certificate[..certificate.len() / 2];
        let read = |certificate: &str, key: &str| {
            KeyPair::read(certificate.as_bytes(), key.as_bytes())
                .map_or_else(|error| (error.file, error.reason.label()), |_| (9, "ok"))
        };
        assert_eq!(read(&certificate, &key), (9, "ok"));
        assert_eq!(read(&format!("{certificate}{other}"), &format!("{certificate}{key}")), (9, "ok"));
        assert_eq!(read(&other, &key), (1, "mismatch"));
        assert_eq!(read(&format!("{other}{certificate}"), &key), (1, "mismatch"), "the leaf comes first");
        assert_eq!(read("", &key), (0, "no-certificate"));
        assert_eq!(read("hello", &key), (0, "no-certificate"));
        let mistake =
            |chain: &str| KeyPair::read(chain.as_bytes(), key.as_bytes()).ok().and_then(|pair| pair.order_mistake);
        assert_eq!(mistake(&certificate), None);
        let mut params = CertificateParams::new(vec!["b.test".to_owned()])?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "another");
        let another = params.self_signed(&RcgenKeyPair::generate()?)?.pem();
        assert!(mistake(&format!("{certificate}{another}")).is_some_and(|why| why.contains("some clients refuse")));
        assert!(no_certificate(key.as_bytes()).contains("swapped"));
        assert!(no_certificate(b"-----BEGIN CERTIFICATE REQUEST-----\n").contains("CSR"));
        let after_mark = |text: &str| format!("\u{feff}{text}");
        assert_eq!(read(&after_mark(&certificate), &after_mark(&key)), (9, "ok"));
        assert!(no_certificate(format!("  {certificate}").as_bytes()).contains("indented"));
        let old_key = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(read(&certificate, old_key), (1, "no-key"));
        assert!(no_certificate(&[0x30, 0x82, 1, 2]).contains("DER"));
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
        assert_eq!(Authorities::read(format!("{one}{two}").as_bytes()).map(|all| all.infos.len()).ok(), Some(2));
        let cut = format!("{one}{}", &two[..100]);
        assert_eq!(Authorities::read(cut.as_bytes()).err().map(|error| error.reason.label()), Some("garbled"));
        assert!(Authorities::from_system(vec![]).is_none());
        Ok(())
    }
}
