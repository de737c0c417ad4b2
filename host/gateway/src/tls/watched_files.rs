//! The files of one certificate or bundle: their current content, and the detection of changes.
//!
//! A change is detected by content and not by file times, because the files are small and times are
//! coarse. A key pair has two files, which cannot be replaced in one step. So files that do not fit
//! are read again after a delay before they are rejected. An expired certificate never replaces a
//! valid one.
//!
//! This module does not know: who uses the content.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::certificate_info::CertificateInfo;
use super::pem::{Authorities, CertificateError, KeyPair, Reason};
use crate::process::regular_file::read_regular;

/// The maximum size of a file. A bundle of all public authorities has 250 kB.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The delay before invalid files are read again.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How often invalid files are read while they change.
const READS_MAX: usize = 5;

/// Content that files can have.
pub(super) trait FileContent: Sized {
    /// Parses the texts of the files, in the order of the files.
    fn parse(texts: &[Vec<u8>]) -> Result<Self, CertificateError>;
    /// The certificates. The content is valid while at least one of them is.
    fn infos(&self) -> &[CertificateInfo];
    /// What is wrong with certificates that are used nevertheless.
    fn mistake(&self) -> Option<&str> {
        None
    }
}

impl FileContent for KeyPair {
    fn parse(texts: &[Vec<u8>]) -> Result<Self, CertificateError> {
        match texts {
            [chain, key] => Self::read(chain, key),
            _ => Err(CertificateError::new(0, Reason::Unreadable, "a key pair needs two files")),
        }
    }

    fn infos(&self) -> &[CertificateInfo] {
        std::slice::from_ref(&self.info)
    }

    fn mistake(&self) -> Option<&str> {
        self.order_mistake.as_deref()
    }
}

impl FileContent for Authorities {
    fn parse(texts: &[Vec<u8>]) -> Result<Self, CertificateError> {
        Self::read(&texts.concat())
    }

    fn infos(&self) -> &[CertificateInfo] {
        &self.infos
    }
}

/// The refusal of files.
#[derive(Debug)]
pub(super) struct FileError {
    /// The file with the problem.
    pub(super) file: PathBuf,
    /// For metrics.
    pub(super) reason: Reason,
    /// What is wrong and what to do.
    pub(super) message: String,
}

impl std::fmt::Display for FileError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.file.display(), self.message)
    }
}

impl std::error::Error for FileError {}

/// The result of a check for changes.
pub(super) enum Change {
    /// The content is the current one, or was rejected before.
    None,
    /// New content is current.
    Loaded,
    /// New content is invalid, and the current content stays.
    Rejected(FileError),
}

/// Files and their last valid content.
pub(super) struct WatchedFiles<T> {
    /// For a key pair, the certificate's file and the key's.
    pub(super) paths: Vec<PathBuf>,
    /// The content in service.
    pub(super) current: Arc<T>,
    current_digest: Digest,
    /// The digest of the last read, whether valid or not.
    last_digest: Digest,
}

type Digest = [u8; 32];

impl<T> Clone for WatchedFiles<T> {
    fn clone(&self) -> Self {
        let Self { paths, current, current_digest, last_digest } = self;
        Self {
            paths: paths.clone(),
            current: current.clone(),
            current_digest: *current_digest,
            last_digest: *last_digest,
        }
    }
}

impl<T: FileContent> WatchedFiles<T> {
    /// Reads the files for the first time. Expired certificates are accepted with a
    /// [warning](Self::warnings).
    pub(super) fn open(paths: Vec<PathBuf>) -> Result<Self, FileError> {
        let (digest, result) = parse_until_stable::<T>(&paths, read(&paths));
        let current = result.map_err(|error| with_path(&paths, error))?;
        Ok(Self { current: Arc::new(current), current_digest: digest, last_digest: digest, paths })
    }

    /// Reads the files again. Rejected content is reported once, unless `report_again` is set.
    pub(super) fn check(&mut self, report_again: bool) -> Change {
        let first = read(&self.paths);
        let is_known = first.0 == self.current_digest || (first.0 == self.last_digest && !report_again);
        if is_known {
            self.last_digest = first.0;
            return Change::None;
        }
        let (digest, result) = parse_until_stable::<T>(&self.paths, first);
        self.last_digest = digest;
        if digest == self.current_digest {
            return Change::None;
        }
        let now = SystemTime::now();
        let checked = result.and_then(|new| match (expiry(new.infos(), now), expiry(self.current.infos(), now)) {
            (Some((reason, why)), None) => {
                Err(CertificateError::new(0, reason, format!("{why}: provide a valid certificate")))
            }
            _ => Ok(new),
        });
        match checked {
            Ok(new) => {
                (self.current, self.current_digest) = (Arc::new(new), digest);
                Change::Loaded
            }
            Err(error) => Change::Rejected(with_path(&self.paths, error)),
        }
    }

    /// Problems of the content in service that an operator should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut found: Vec<String> =
            expiry(self.current.infos(), SystemTime::now()).map(|(_, why)| why).into_iter().collect();
        found.extend(self.current.mistake().map(str::to_owned));
        if let Some(key) = self.paths.get(1)
            && fs::metadata(key).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
        {
            found.push(format!("{}: every user can read this key: chmod 600", key.display()));
        }
        found
    }
}

fn with_path(paths: &[PathBuf], error: CertificateError) -> FileError {
    let CertificateError { file, reason, message } = error;
    FileError { file: paths.get(file).or(paths.first()).cloned().unwrap_or_default(), reason, message }
}

/// Why no certificate is valid at this time. `None` if one is.
fn expiry(infos: &[CertificateInfo], now: SystemTime) -> Option<(Reason, String)> {
    if infos.iter().any(|info| info.not_before <= now && now <= info.not_after) {
        return None;
    }
    let first = infos.first()?;
    Some(if now > first.not_after {
        (Reason::Expired, format!("{} expired on {}", first.subject, httpdate::fmt_http_date(first.not_after)))
    } else {
        (
            Reason::NotYetValid,
            format!("{} is not valid before {}", first.subject, httpdate::fmt_http_date(first.not_before)),
        )
    })
}

type Texts = (Digest, Result<Vec<Vec<u8>>, CertificateError>);

/// Parses texts. Reads them again while they are invalid and change.
fn parse_until_stable<T: FileContent>(paths: &[PathBuf], first: Texts) -> (Digest, Result<T, CertificateError>) {
    let parse = |(digest, texts): Texts| (digest, texts.and_then(|texts| T::parse(&texts)));
    let (mut digest, mut result) = parse(first);
    for _ in 1..READS_MAX {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(RETRY_DELAY);
        let again = read(paths);
        if again.0 == digest {
            break;
        }
        (digest, result) = parse(again);
    }
    (digest, result)
}

/// Reads all files. The digest covers the texts, or the problems in their place.
fn read(paths: &[PathBuf]) -> Texts {
    let (mut hash, mut texts, mut failed) = (Sha256::new(), vec![], None);
    for (index, path) in paths.iter().enumerate() {
        match read_file(path) {
            Ok(text) => {
                hash.update(text.len().to_le_bytes());
                hash.update(&text);
                texts.push(text);
            }
            Err((reason, message)) => {
                hash.update(reason.label());
                failed.get_or_insert(CertificateError::new(index, reason, message));
            }
        }
    }
    (hash.finalize().into(), failed.map_or(Ok(texts), Err))
}

fn read_file(path: &Path) -> Result<Vec<u8>, (Reason, String)> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            (Reason::Missing, "there is no such file: create it, or correct its path".to_owned())
        }
        std::io::ErrorKind::PermissionDenied => {
            (Reason::Unreadable, format!("{error}: let the gateway's user read it"))
        }
        _ => (Reason::Unreadable, error.to_string()),
    };
    read_regular(path, FILE_BYTES_MAX).map_err(unreadable)
}
