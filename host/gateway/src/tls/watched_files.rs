//! One or two files, what was last good in them, and whether they say something else now.
//!
//! Content is compared, not file times: the files are small, times are coarse, and a pair is two files that nobody can replace in one step. So what does not fit is
//! read again a moment later before it counts as bad. What is out of date never replaces what is not. Must not know: who uses the content.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::tls::{Authorities, Facts, Pair, Refused};

/// The largest file: a bundle of all public authorities has 250 kB.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Files that do not fit are read again after this.
const SETTLE: Duration = Duration::from_millis(100);
/// And not more often than this.
const TRIES_MAX: usize = 5;

/// What files can hold.
pub(super) trait Material: Sized {
    /// From the files' texts, in their order.
    fn read(texts: &[Vec<u8>]) -> Result<Self, Refused>;
    /// Of the certificates that must not be out of date, all at once.
    fn facts(&self) -> &[Facts];
}

impl Material for Pair {
    fn read(texts: &[Vec<u8>]) -> Result<Self, Refused> {
        match texts {
            [chain, key] => Self::read(chain, key),
            _ => Err(Refused::new(0, "unreadable", "a pair is two files")),
        }
    }

    fn facts(&self) -> &[Facts] {
        std::slice::from_ref(&self.facts)
    }
}

impl Material for Authorities {
    fn read(texts: &[Vec<u8>]) -> Result<Self, Refused> {
        Self::read(&texts.concat())
    }

    fn facts(&self) -> &[Facts] {
        &self.facts
    }
}

/// Why files are not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Which one.
    pub(super) file: PathBuf,
    /// For metrics.
    pub(super) reason: &'static str,
    /// What is wrong and what to do.
    pub(super) why: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.file.display(), self.why)
    }
}

/// What a look at the files found.
pub(super) enum Look {
    /// Nothing new, or the same bad content as before.
    Same,
    /// Something good.
    New,
    /// Something bad; what was good before stays.
    Refused(Refusal),
}

/// Files and the last good content of them.
pub(super) struct Slot<T> {
    /// For a pair the certificate's and the key's.
    pub(super) files: Vec<PathBuf>,
    /// In use.
    pub(super) good: Arc<T>,
    good_digest: Digest,
    /// Of the last look, good or bad.
    seen: Digest,
}

type Digest = [u8; 32];

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        let Self { files, good, good_digest, seen } = self;
        Self { files: files.clone(), good: good.clone(), good_digest: *good_digest, seen: *seen }
    }
}

impl<T: Material> Slot<T> {
    /// Reads the files for the first time. What is out of date is taken: see [`Slot::warnings`].
    pub(super) fn open(files: Vec<PathBuf>) -> Result<Self, Refusal> {
        let (digest, result) = read_settled::<T>(&files, read(&files));
        let good = result.map_err(|refused| refusal(&files, refused))?;
        Ok(Self { good: Arc::new(good), good_digest: digest, seen: digest, files })
    }

    /// Reads the files again. Content that was refused is not told again before it changes, unless `force`d.
    pub(super) fn look(&mut self, force: bool) -> Look {
        let first = read(&self.files);
        let is_known = first.0 == self.good_digest || (first.0 == self.seen && !force);
        if is_known {
            self.seen = first.0;
            return Look::Same;
        }
        let (digest, result) = read_settled::<T>(&self.files, first);
        self.seen = digest;
        if digest == self.good_digest {
            return Look::Same;
        }
        let now = SystemTime::now();
        let judged = result.and_then(|new| match (untimely(new.facts(), now), untimely(self.good.facts(), now)) {
            (Some((reason, why)), None) => Err(Refused::new(0, reason, format!("{why}: give one that is valid"))),
            _ => Ok(new),
        });
        match judged {
            Ok(new) => {
                (self.good, self.good_digest) = (Arc::new(new), digest);
                Look::New
            }
            Err(refused) => Look::Refused(refusal(&self.files, refused)),
        }
    }

    /// What an operator should know of content that is in use all the same.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut found: Vec<String> =
            untimely(self.good.facts(), SystemTime::now()).map(|(_, why)| why).into_iter().collect();
        if let Some(key) = self.files.get(1)
            && fs::metadata(key).is_ok_and(|about| about.mode() & 0o004 != 0)
        {
            found.push(format!("{}: every user can read this key: chmod 600", key.display()));
        }
        found
    }
}

fn refusal(files: &[PathBuf], Refused { file, reason, message }: Refused) -> Refusal {
    Refusal { file: files.get(file).or(files.first()).cloned().unwrap_or_default(), reason, why: message }
}

/// Why none of the certificates is valid now.
fn untimely(facts: &[Facts], now: SystemTime) -> Option<(&'static str, String)> {
    if facts.iter().any(|one| one.not_before <= now && now <= one.not_after) {
        return None;
    }
    let first = facts.first()?;
    Some(if now > first.not_after {
        ("expired", format!("{} is out of date since {}", first.subject, httpdate::fmt_http_date(first.not_after)))
    } else {
        (
            "not-yet-valid",
            format!("{} is not valid before {}", first.subject, httpdate::fmt_http_date(first.not_before)),
        )
    })
}

type Texts = (Digest, Result<Vec<Vec<u8>>, Refused>);

/// Makes sense of texts; reads again for as long as they make none and change.
fn read_settled<T: Material>(files: &[PathBuf], first: Texts) -> (Digest, Result<T, Refused>) {
    let parse = |(digest, texts): Texts| (digest, texts.and_then(|texts| T::read(&texts)));
    let (mut digest, mut result) = parse(first);
    for _ in 1..TRIES_MAX {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(SETTLE);
        let again = read(files);
        if again.0 == digest {
            break;
        }
        (digest, result) = parse(again);
    }
    (digest, result)
}

/// All texts, or the first problem; the digest is of either.
fn read(files: &[PathBuf]) -> Texts {
    let (mut hash, mut texts, mut refused) = (Sha256::new(), vec![], None);
    for (index, file) in files.iter().enumerate() {
        match read_one(file) {
            Ok(text) => {
                hash.update(text.len().to_le_bytes());
                hash.update(&text);
                texts.push(text);
            }
            Err((reason, why)) => {
                hash.update(reason);
                refused.get_or_insert(Refused::new(index, reason, why));
            }
        }
    }
    (hash.finalize().into(), refused.map_or(Ok(texts), Err))
}

fn read_one(file: &Path) -> Result<Vec<u8>, (&'static str, String)> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            ("missing", "there is no such file: put it there, or correct its path".to_owned())
        }
        _ => ("unreadable", format!("{error}: let the gateway's user read it")),
    };
    // Opening a pipe would wait for its writer.
    if !fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err(("unreadable", "is no file".to_owned()));
    }
    let mut text = vec![];
    File::open(file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(("unreadable", format!("has more than the {FILE_BYTES_MAX} bytes that are read")));
    }
    Ok(text)
}
