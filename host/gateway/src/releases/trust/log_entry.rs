//! The entry of a signature in the transparency log Rekor, as cosign attaches it.
//!
//! A certificate of Sigstore is valid for minutes. The log's signed timestamp proves that the
//! signature existed in that time, and that it is public. It is checked without the log: the proof
//! that the entry is in the log's tree is not (docs/reference/config.md). This module does not
//! know: whose certificate it is.

use std::time::SystemTime;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use witgate_http::text::quoted;

use super::trusted_root::{Log, unix_time};

/// The annotation of cosign.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    signed_entry_timestamp: String,
    payload: Logged,
}

/// What the log signs: these fields in this order, as JSON without spaces (RFC 8785).
#[derive(Deserialize, Serialize)]
struct Logged {
    body: String,
    #[serde(rename = "integratedTime")]
    integrated_time: i64,
    #[serde(rename = "logID")]
    log_id: String,
    #[serde(rename = "logIndex")]
    log_index: i64,
}

/// The body of an entry of the kind `hashedrekord`.
#[derive(Deserialize)]
struct Body {
    kind: String,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    data: Data,
    signature: Signature,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signature {
    content: String,
    public_key: PublicKey,
}

#[derive(Deserialize)]
struct PublicKey {
    content: String,
}

/// Verifies that one of the logs has an entry of this signature. Returns the time of the entry.
/// `certificate` is the text of the PEM certificate.
///
/// # Errors
/// Why the entry proves nothing.
pub(super) fn verify(
    logs: &[Log],
    entry: &str,
    payload: &[u8],
    signature: &[u8],
    certificate: &str,
) -> Result<SystemTime, String> {
    let invalid = |error: serde_json::Error| format!("its entry of a transparency log is not valid: {error}");
    let entry: Entry = serde_json::from_str(entry).map_err(invalid)?;
    let time = signed_time(logs, &entry)?;
    let body: Body = serde_json::from_slice(&decode(&entry.payload.body)?).map_err(invalid)?;
    if body.kind != "hashedrekord" {
        return Err(format!("its entry of a transparency log has the kind {}", quoted(&body.kind)));
    }
    let Spec { data, signature: logged } = body.spec;
    let is_same = data.hash.algorithm == "sha256"
        && data.hash.value.eq_ignore_ascii_case(&hex::encode(Sha256::digest(payload)))
        && decode(&logged.content)? == signature
        && decode(&logged.public_key.content)?.trim_ascii() == certificate.trim().as_bytes();
    if is_same { Ok(time) } else { Err("its entry of a transparency log is that of another signature".into()) }
}

/// The time of an entry that a log signed.
fn signed_time(logs: &[Log], entry: &Entry) -> Result<SystemTime, String> {
    let Entry { signed_entry_timestamp, payload } = entry;
    let log = logs.iter().find(|log| log.id.eq_ignore_ascii_case(&payload.log_id)).ok_or_else(|| {
        format!("its entry is of the transparency log {}, which is not in `trusted_root`", quoted(&payload.log_id))
    })?;
    let signed = serde_json::to_vec(payload).map_err(|error| error.to_string())?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &log.key);
    key.verify(&signed, &decode(signed_entry_timestamp)?)
        .map_err(|_| "its entry of a transparency log was changed, or the log did not sign it")?;
    let time = unix_time(payload.integrated_time).ok_or("its entry of a transparency log has no valid time")?;
    if log.valid_for.contains(time) {
        Ok(time)
    } else {
        Err("its entry of a transparency log is of a time for which `trusted_root` does not trust that log".into())
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("its entry of a transparency log: {error}"))
}
