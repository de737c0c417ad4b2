//! The certificates in service as a list, for operators.
//!
//! The list is replaced whenever a file changes. It contains nothing of the keys. This module does
//! not know: who shows the list.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use utoipa::ToSchema;

use super::certificate_info::CertificateInfo;
use super::watched_files::{FileContent, WatchedFiles};

/// Certificates of one file that are listed. A bundle of authorities may have hundreds.
const LISTED_MAX: usize = 20;
/// Names of one certificate that are listed.
const NAMES_MAX: usize = 50;

/// The certificates in service. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct CertificateList(Arc<Mutex<Vec<ListedCertificate>>>);

/// A certificate in service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListedCertificate {
    /// `listener`, `upstream` or `store`.
    used_by: &'static str,
    /// The name of the listener, the upstream or the store.
    name: String,
    /// `own` (the gateway shows it) or `authority` (the gateway verifies others with it).
    role: &'static str,
    /// Its file.
    file: String,
    /// The subject (RFC 4514).
    subject: String,
    /// The alternative names, such as `dns:example.com`.
    names: Vec<String>,
    /// The SHA-256 of the certificate.
    sha256: String,
    /// Valid from, as Unix time in seconds.
    not_before: u64,
    /// Valid until.
    not_after: u64,
    /// Seconds until it expires. Negative if it has.
    expires_in_seconds: i64,
}

impl CertificateList {
    /// A copy of the list.
    pub fn get(&self) -> Vec<ListedCertificate> {
        let now = unix_seconds(SystemTime::now());
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for one in &mut list {
            one.expires_in_seconds = i64::try_from(one.not_after).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(0);
        }
        list
    }

    pub(super) fn set(&self, list: Vec<ListedCertificate>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }
}

/// The certificates of watched files.
pub(super) fn listed<T: FileContent>(
    (used_by, name): (&'static str, &str),
    role: &'static str,
    files: &WatchedFiles<T>,
) -> Vec<ListedCertificate> {
    let file = files.paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    let entry = |info: &CertificateInfo| ListedCertificate {
        used_by,
        name: name.to_owned(),
        role,
        file: file.clone(),
        subject: info.subject.clone(),
        names: info.alternative_names.iter().take(NAMES_MAX).cloned().collect(),
        sha256: info.sha256.clone(),
        not_before: unix_seconds(info.not_before),
        not_after: unix_seconds(info.not_after),
        expires_in_seconds: 0,
    };
    files.current.infos().iter().take(LISTED_MAX).map(entry).collect()
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
