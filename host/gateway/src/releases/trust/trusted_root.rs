//! The authorities and transparency logs of Sigstore, as its file trusted_root.json has them.
//!
//! The operator gives the file, so nothing is fetched. Logs with other keys than P-256 are left
//! out: their entries have no signed timestamp. This module does not know: signatures.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::keys::point_of_der;

/// Whom the operator trusts.
pub(super) struct TrustedRoot {
    pub(super) authorities: Vec<Authority>,
    pub(super) logs: Vec<Log>,
}

/// An authority that certifies identities.
pub(super) struct Authority {
    pub(super) root: CertificateDer<'static>,
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    pub(super) valid_for: Period,
}

/// A transparency log.
pub(super) struct Log {
    /// SHA-256 of its key, in hexadecimal.
    pub(super) id: String,
    /// A point of the curve P-256.
    pub(super) key: Vec<u8>,
    pub(super) valid_for: Period,
}

/// A time with an open or a closed end.
pub(super) struct Period {
    start: SystemTime,
    end: Option<SystemTime>,
}

impl Period {
    pub(super) fn contains(&self, time: SystemTime) -> bool {
        self.start <= time && self.end.is_none_or(|end| time <= end)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    certificate_authorities: Vec<AuthorityEntry>,
    tlogs: Vec<LogEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityEntry {
    cert_chain: Chain,
    #[serde(default)]
    valid_for: PeriodEntry,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Bytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bytes {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogEntry {
    public_key: Key,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    raw_bytes: String,
    #[serde(default)]
    valid_for: PeriodEntry,
}

#[derive(Deserialize, Default)]
struct PeriodEntry {
    start: Option<String>,
    end: Option<String>,
}

impl TrustedRoot {
    /// # Errors
    /// The text is no trusted_root.json, or has no authority or no usable log.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fail = |why: String| format!("the `trusted_root` of the source is not valid: {why}");
        let file: File = serde_json::from_str(text).map_err(|error| fail(error.to_string()))?;
        let authorities = file.certificate_authorities.iter().enumerate().map(|(index, entry)| {
            Authority::read(entry).map_err(|why| fail(format!("certificateAuthorities[{index}]: {why}")))
        });
        let authorities = authorities.collect::<Result<Vec<_>, _>>()?;
        let mut logs = vec![];
        for (index, entry) in file.tlogs.iter().enumerate() {
            logs.extend(Log::read(&entry.public_key).map_err(|why| fail(format!("tlogs[{index}]: {why}")))?);
        }
        if authorities.is_empty() || logs.is_empty() {
            return Err(fail("it has no authority, or no log with an ECDSA key of the curve P-256".into()));
        }
        Ok(Self { authorities, logs })
    }
}

impl Authority {
    /// The last certificate of a chain is its root.
    fn read(entry: &AuthorityEntry) -> Result<Self, String> {
        let certificates = entry.cert_chain.certificates.iter().map(|entry| bytes(&entry.raw_bytes));
        let mut certificates: Vec<CertificateDer<'static>> =
            certificates.map(|der| der.map(CertificateDer::from)).collect::<Result<_, _>>()?;
        let root = certificates.pop().ok_or("it has no certificate")?;
        webpki::anchor_from_trusted_cert(&root).map_err(|error| format!("its last certificate: {error}"))?;
        Ok(Self { root, intermediates: certificates, valid_for: period(&entry.valid_for)? })
    }
}

impl Log {
    /// `None` for a key of another kind.
    fn read(key: &Key) -> Result<Option<Self>, String> {
        let (der, valid_for) = (bytes(&key.raw_bytes)?, period(&key.valid_for)?);
        let id = hex::encode(Sha256::digest(&der));
        Ok(point_of_der(&der).ok().map(|key| Self { id, key, valid_for }))
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| format!("rawBytes: {error}"))
}

/// A period without a start has none, as in files of private instances.
fn period(entry: &PeriodEntry) -> Result<Period, String> {
    let time = |text: &String| humantime::parse_rfc3339(text).map_err(|error| format!("validFor: {error}"));
    let start = entry.start.as_ref().map(time).transpose()?.unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Period { start, end: entry.end.as_ref().map(time).transpose()? })
}

/// A time of a log. `None` if it is not between 1970 and 9999.
pub(super) fn unix_time(seconds: i64) -> Option<SystemTime> {
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= LAST)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
