//! Public keys as gateway.yaml contains them.
//!
//! This module does not know: signatures.

use minisign_verify::PublicKey;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// An uncompressed point of the curve P-256.
const POINT_BYTES: usize = 65;

/// Keys by kind.
pub(super) struct Keys {
    pub(super) minisign: Vec<PublicKey>,
    /// Points of P-256.
    pub(super) ecdsa: Vec<Vec<u8>>,
}

impl Keys {
    /// # Errors
    /// A key is not valid.
    pub(super) fn parse(texts: &[String]) -> Result<Self, String> {
        let mut keys = Self { minisign: vec![], ecdsa: vec![] };
        for (index, text) in texts.iter().enumerate() {
            let fail = |why: String| format!("the key keys[{index}] of the source is not valid: {why}");
            if text.contains("-----BEGIN") {
                keys.ecdsa.push(point(text).map_err(fail)?);
            } else {
                let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                let key = PublicKey::from_base64(line.trim()).map_err(|error| fail(error.to_string()))?;
                keys.minisign.push(key);
            }
        }
        Ok(keys)
    }
}

fn point(pem: &str) -> Result<Vec<u8>, String> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    point_of_der(&pem.contents)
}

/// The point of a public key in DER.
///
/// # Errors
/// It is no key of the curve P-256.
pub(super) fn point_of_der(der: &[u8]) -> Result<Vec<u8>, String> {
    let (_, key) = SubjectPublicKeyInfo::from_der(der).map_err(|error| error.to_string())?;
    let point = key.subject_public_key.data.to_vec();
    if point.len() == POINT_BYTES && point.first() == Some(&4) {
        Ok(point)
    } else {
        Err("it is not an ECDSA key of the curve P-256: `cosign generate-key-pair` makes one".into())
    }
}
