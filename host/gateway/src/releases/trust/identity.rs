//! Signatures by a key that Sigstore certified for an identity ("keyless"), verified without a
//! network.
//!
//! The chain leads to an authority of the operator's trusted_root.json. The certificate was valid
//! at the time that a transparency log signed, and it names an identity and an issuer that the
//! operator allows. That the certificate is also in a log of certificates is not checked: the entry
//! of the signature already publishes it. This module does not know: images.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::aws_lc_rs::ECDSA_P256_SHA256;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use witgate_http::text::quoted;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::Oid;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use super::log_entry;
use super::trusted_root::{Authority, TrustedRoot};
use crate::releases::evidence::CosignSignature;
use witgate_config::SignerIdentity;

/// The purpose "code signing" (RFC 5280, section 4.2.1.12), encoded.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// The extension of Fulcio with the issuer, as a string of DER.
const ISSUER: Oid<'static> = oid!(1.3.6.1.4.1.57264.1.8);
/// The same without DER, from older versions.
const ISSUER_OLD: Oid<'static> = oid!(1.3.6.1.4.1.57264.1.1);
const UTF8_STRING: u8 = 0x0c;

/// Verifies a signature of its payload. Returns the identity of the signer.
///
/// # Errors
/// Why no allowed identity made the signature.
pub(super) fn verify(
    root: &TrustedRoot,
    allowed: &[SignerIdentity],
    signature: &CosignSignature,
    bytes: &[u8],
) -> Result<String, String> {
    let pem =
        signature.certificate.as_deref().ok_or("no key in `keys` made the signature, and it has no certificate")?;
    let invalid = |error: &dyn std::fmt::Display| format!("its certificate is not valid: {error}");
    let (_, parsed) = parse_x509_pem(pem.as_bytes()).map_err(|error| invalid(&error))?;
    let der = CertificateDer::from(parsed.contents);
    let entry = signature.log_entry.as_deref().ok_or("it has no entry of a transparency log")?;
    let payload = signature.payload.as_bytes();
    let time = log_entry::verify(&root.logs, entry, payload, bytes, pem)?;
    let certificate = EndEntityCert::try_from(&der).map_err(|error| invalid(&error))?;
    check_chain(&root.authorities, &certificate, time)?;
    certificate
        .verify_signature(ECDSA_P256_SHA256, payload, bytes)
        .map_err(|_| "the key of its certificate did not make the signature, or its payload was changed")?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| invalid(&error))?;
    check_identity(allowed, &certificate)
}

/// Whether the certificate was valid at a time.
fn check_chain(authorities: &[Authority], certificate: &EndEntityCert<'_>, time: SystemTime) -> Result<(), String> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut last = "no authority of `trusted_root` is trusted for the time of the signature".to_owned();
    for authority in authorities.iter().filter(|authority| authority.valid_for.contains(time)) {
        let anchor = webpki::anchor_from_trusted_cert(&authority.root).map_err(|error| error.to_string())?;
        let anchors = [anchor];
        let verified = certificate.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &anchors,
            &authority.intermediates,
            UnixTime::since_unix_epoch(since_epoch),
            KeyUsage::required(CODE_SIGNING),
            None,
            None,
        );
        match verified {
            Ok(_) => return Ok(()),
            Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
                "its certificate was not valid at the time of its entry in the transparency log".clone_into(&mut last);
            }
            // An authority with the same name has another key.
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
                "no authority of `trusted_root` issued its certificate".clone_into(&mut last);
            }
            Err(error) => last = format!("its certificate is not valid: {error}"),
        }
    }
    Err(last)
}

fn check_identity(allowed: &[SignerIdentity], certificate: &X509Certificate<'_>) -> Result<String, String> {
    let names = certificate.subject_alternative_name().map_err(|error| format!("its certificate: {error}"))?;
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some(*name),
        _ => None,
    });
    let issuer = issuer(certificate).ok_or("its certificate names no issuer")?;
    let mut found = None;
    for name in names {
        if allowed.iter().any(|one| one.issuer == issuer && is_match(&one.identity, name)) {
            return Ok(format!("{} of {}", quoted(name), quoted(issuer)));
        }
        found = Some(name);
    }
    let name = found.ok_or("its certificate has neither a URI nor an e-mail address")?;
    Err(format!("it is by {} of {}, who is not in `identities`", quoted(name), quoted(issuer)))
}

fn is_match(allowed: &str, name: &str) -> bool {
    allowed.strip_suffix('*').map_or(allowed == name, |start| name.starts_with(start))
}

/// The service at which the signer logged in.
fn issuer<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let value = |oid: &Oid<'_>| {
        let extension = certificate.extensions().iter().find(|extension| extension.oid == *oid);
        extension.map(|extension| extension.value)
    };
    let bytes = match value(&ISSUER) {
        // A URL is shorter than 128 bytes or has its length in one or two more.
        Some([UTF8_STRING, length, rest @ ..]) if usize::from(*length) == rest.len() && *length < 0x80 => rest,
        Some([UTF8_STRING, 0x81, length, rest @ ..]) if usize::from(*length) == rest.len() => rest,
        Some(_) => return None,
        None => value(&ISSUER_OLD)?,
    };
    std::str::from_utf8(bytes).ok()
}
