//! Signatures of cosign: ECDSA over a payload that names an image, by a key pair or by a key that
//! Sigstore certified for an identity.
//!
//! The payload binds the digest of the manifest and the name of the repository; the digest of the
//! manifest binds the component. This module does not know: registries, certificates.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use serde::Deserialize;
use witgate_http::text::quoted;

use super::identity;
use super::trusted_root::TrustedRoot;
use crate::releases::evidence::{CosignSignature, Image};
use witgate_config::SignerIdentity;

const TYPE: &str = "cosign container image signature";

/// The format "simple signing" of containers/image.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: SignedImage,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
struct SignedImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Whose signatures count.
pub(super) struct Signers<'a> {
    /// Points of the curve P-256.
    pub(super) keys: &'a [Vec<u8>],
    pub(super) identities: &'a [SignerIdentity],
    pub(super) root: Option<&'a TrustedRoot>,
}

/// Verifies a signature of an image. Returns who signed it.
///
/// # Errors
/// Why the signature is not valid for the image.
pub(super) fn verify(signers: &Signers<'_>, signature: &CosignSignature, image: &Image) -> Result<String, String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(signature.signature.trim());
    let bytes = bytes.map_err(|_| "the signature is not base64: sign the image again".to_owned())?;
    let payload = signature.payload.as_bytes();
    let is_by = |key: &Vec<u8>| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(payload, &bytes).is_ok();
    let signer = match (signers.keys.iter().position(is_by), signers.root) {
        (Some(key), _) => format!("keys[{key}] of the ECDSA keys"),
        (None, Some(root)) => identity::verify(root, signers.identities, signature, &bytes)?,
        (None, None) if signers.keys.is_empty() => return Err("no ECDSA key is configured".into()),
        (None, None) => return Err("no key in `keys` made the signature, or its payload was changed".into()),
    };
    check_payload(payload, image)?;
    Ok(format!("cosign: {signer}"))
}

/// Checks that a payload is for this image.
fn check_payload(payload: &[u8], image: &Image) -> Result<(), String> {
    let Payload { critical } = serde_json::from_slice(payload).map_err(|error| format!("its payload: {error}"))?;
    if critical.kind != TYPE {
        return Err(format!("its payload has the type {}", quoted(&critical.kind)));
    }
    if !image.digests.contains(&critical.image.digest) {
        return Err(format!("it is for the image {}", quoted(&critical.image.digest)));
    }
    let repository = repository_of(&critical.identity.reference);
    if repository != image.repository {
        return Err(format!("it is for the repository {}, not for {}", quoted(repository), image.repository));
    }
    Ok(())
}

/// A reference without its tag or digest.
fn repository_of(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;

    const DIGEST: &str = "sha256:0123";

    fn payload(repository: &str, digest: &str, kind: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{repository}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":null}}"#
        )
    }

    #[test]
    fn only_a_signature_of_this_image_in_this_repository_counts() -> Result<(), Box<dyn std::error::Error>> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let image = Image { repository: "reg:5000/a/b".into(), digests: vec![DIGEST.into()] };
        let sign = |payload: String| -> Result<CosignSignature, Box<dyn std::error::Error>> {
            let signature = pair.sign(&SystemRandom::new(), payload.as_bytes())?;
            let signature = base64::engine::general_purpose::STANDARD.encode(signature);
            Ok(CosignSignature { payload, signature, certificate: None, log_entry: None })
        };
        let (own, stranger) = (pair.public_key().as_ref().to_vec(), other.public_key().as_ref().to_vec());
        let check = |keys: &[Vec<u8>], signature: &CosignSignature| {
            let signers = Signers { keys, identities: &[], root: None };
            verify(&signers, signature, &image).err().unwrap_or_default()
        };
        let good = sign(payload("reg:5000/a/b", DIGEST, TYPE))?;
        assert_eq!(check(&[stranger.clone(), own.clone()], &good), "");
        assert_eq!(check(std::slice::from_ref(&own), &sign(payload("reg:5000/a/b:1.0", DIGEST, TYPE))?), "");
        assert!(check(&[stranger], &good).contains("no key in `keys` made the signature"));
        let changed = CosignSignature { payload: good.payload.replace("0123", "0124"), ..good.clone() };
        assert!(check(std::slice::from_ref(&own), &changed).contains("its payload was changed"));
        for (payload, why) in [
            (payload("reg:5000/a/c", DIGEST, TYPE), "not for reg:5000/a/b"),
            (payload("reg:5000/a/b", "sha256:9", TYPE), "it is for the image"),
            (payload("reg:5000/a/b", DIGEST, "other"), "has the type"),
            ("{}".into(), "its payload"),
        ] {
            let found = check(std::slice::from_ref(&own), &sign(payload)?);
            assert!(found.contains(why), "{found}");
        }
        Ok(())
    }
}
