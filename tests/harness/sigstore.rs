//! A private Sigstore for one test: an authority that certifies identities, and a transparency log
//! that signs entries. Signatures have the layout of `cosign sign --new-bundle-format=false`.
//!
//! This module does not know: the gateway.

use anyhow::{Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SigningKey as _,
};
use sha2::{Digest as _, Sha256};

use crate::registry::Registry;

/// Noon of the only day for which certificates are valid, 2026-06-01.
pub const NOON: i64 = 1_780_315_200;
/// The beginning of SubjectPublicKeyInfo of a point of P-256 (RFC 5480).
const POINT_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const ISSUER_OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 57264, 1, 8];
const ISSUER_OLD_OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 57264, 1, 1];

/// The authority and the log.
pub struct Sigstore {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
    log: EcdsaKeyPair,
}

/// How one signature is made. Tests change a field to get an invalid one.
pub struct Signer<'a> {
    /// A URI, or an e-mail address.
    pub identity: &'a str,
    /// Where the signer logged in.
    pub issuer: &'a str,
    /// The time of the log's entry.
    pub time: i64,
    /// Whether the signature has an entry in the log.
    pub is_logged: bool,
    /// Whether the certificate is for signing code.
    pub is_for_code: bool,
    /// Whether the issuer is only in the extension of older versions.
    pub has_old_extension: bool,
    /// Changes the payload after it was signed.
    pub change: fn(String) -> String,
    /// Changes the log's entry.
    pub change_entry: fn(String) -> String,
}

impl Default for Signer<'_> {
    fn default() -> Self {
        Self {
            identity: "https://ci.test/acme/filters@refs/tags/v1",
            issuer: "https://ci.test",
            time: NOON,
            is_logged: true,
            is_for_code: true,
            has_old_extension: false,
            change: |payload| payload,
            change_entry: |entry| entry,
        }
    }
}

impl Sigstore {
    /// New keys.
    pub fn new() -> Result<Self> {
        let root = CertifiedIssuer::self_signed(authority("root"), KeyPair::generate()?)?;
        let mut params = authority("intermediate");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let intermediate = CertifiedIssuer::signed_by(params, KeyPair::generate()?, &root)?;
        let log = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| anyhow!("no key"))?;
        Ok(Self { root, intermediate, log })
    }

    /// The same authority with another log.
    pub fn with_another_log(self) -> Result<Self> {
        Ok(Self { log: Self::new()?.log, ..self })
    }

    /// The file trusted_root.json. `valid_for` is JSON for the authority and for the log.
    pub fn trusted_root(&self, valid_for: [&str; 2]) -> Result<String> {
        let encode = |der: &[u8]| STANDARD.encode(der);
        let (key, id) = self.log_key()?;
        Ok(format!(
            r#"{{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1",
"tlogs":[{{"baseUrl":"https://log.test","hashAlgorithm":"SHA2_256","publicKey":{{"rawBytes":"{}","keyDetails":"PKIX_ECDSA_P256_SHA_256","validFor":{}}},"logId":{{"keyId":"{}"}}}}],
"certificateAuthorities":[{{"subject":{{"organization":"test","commonName":"test"}},"uri":"https://ca.test","certChain":{{"certificates":[{{"rawBytes":"{}"}},{{"rawBytes":"{}"}}]}},"validFor":{}}}]}}"#,
            encode(&key),
            valid_for[1],
            encode(&id),
            encode(self.intermediate.der()),
            encode(self.root.der()),
            valid_for[0],
        ))
    }

    /// Signs an image of a registry and pushes the signature.
    pub fn sign(&self, registry: &Registry, repository: &str, image: &str, signer: &Signer<'_>) -> Result<()> {
        let payload = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{}/{repository}"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"cosign container image signature"}},"optional":null}}"#,
            registry.address
        );
        let key = KeyPair::generate()?;
        let certificate = certificate(signer)?.signed_by(&key, &self.intermediate)?.pem();
        let signature = STANDARD.encode(key.sign(payload.as_bytes())?);
        let mut annotations = serde_json::json!({
            "dev.cosignproject.cosign/signature": signature,
            "dev.sigstore.cosign/certificate": certificate,
            "dev.sigstore.cosign/chain": format!("{}{}", self.intermediate.pem(), self.root.pem()),
        });
        if signer.is_logged {
            let entry = self.entry(&payload, &signature, &certificate, signer.time)?;
            annotations["dev.sigstore.cosign/bundle"] = (signer.change_entry)(entry).into();
        }
        let payload = (signer.change)(payload);
        let blob = registry.push_blob(repository, payload.as_bytes())?;
        let layer = format!(
            r#"{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{blob}","size":{},"annotations":{annotations}}}"#,
            payload.len()
        );
        registry.push_layers(repository, &format!("{}.sig", image.replace(':', "-")), &layer, "")?;
        Ok(())
    }

    /// The annotation with the log's entry of a signature.
    fn entry(&self, payload: &str, signature: &str, certificate: &str, time: i64) -> Result<String> {
        let body = serde_json::json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord",
            "spec": {
                "data": { "hash": { "algorithm": "sha256", "value": hex::encode(Sha256::digest(payload)) } },
                "signature": { "content": signature, "publicKey": { "content": STANDARD.encode(certificate) } },
            },
        });
        let (body, id) = (STANDARD.encode(body.to_string()), hex::encode(self.log_key()?.1));
        let signed = format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{id}","logIndex":7}}"#);
        let promise = self.log.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| anyhow!("no signature"))?;
        Ok(format!(r#"{{"SignedEntryTimestamp":"{}","Payload":{signed}}}"#, STANDARD.encode(promise)))
    }

    /// The key of the log as DER, and its SHA-256.
    fn log_key(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut der = hex::decode(POINT_PREFIX)?;
        der.extend_from_slice(self.log.public_key().as_ref());
        let id = Sha256::digest(&der).to_vec();
        Ok((der, id))
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn certificate(signer: &Signer<'_>) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = rcgen::date_time_ymd(2026, 6, 1);
    params.not_after = rcgen::date_time_ymd(2026, 6, 2);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usage =
        if signer.is_for_code { ExtendedKeyUsagePurpose::CodeSigning } else { ExtendedKeyUsagePurpose::ClientAuth };
    params.extended_key_usages = vec![usage];
    let name = signer.identity.try_into()?;
    params.subject_alt_names =
        vec![if signer.identity.contains("://") { SanType::URI(name) } else { SanType::Rfc822Name(name) }];
    let issuer = signer.issuer.as_bytes().to_vec();
    // Fulcio writes both, and cosign reads the old one.
    params.custom_extensions = vec![CustomExtension::from_oid_content(&ISSUER_OLD_OID, issuer.clone())];
    if !signer.has_old_extension {
        let length = u8::try_from(issuer.len())?;
        let encoded = [&[0x0c, length], &*issuer].concat();
        params.custom_extensions.push(CustomExtension::from_oid_content(&ISSUER_OID, encoded));
    }
    Ok(params)
}
