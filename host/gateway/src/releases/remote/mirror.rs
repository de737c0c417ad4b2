//! The fetched components on disk, and what is known of each location.
//!
//! A component is a file named by its SHA-256. A record for each location names the component that
//! was fetched last and the one that was loaded last, so that a start needs no server. Both files
//! are replaced as a whole. Nobody else can write to the folder, so the records are trusted.
//!
//! This module does not know: how a component is fetched.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::process::private_folder::ensure_private_folder;
use crate::process::regular_file::read_regular;
use crate::releases::evidence::Evidence;

const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Records of locations that the configuration does not name. They make a way back fast.
const UNUSED_RECORDS_MAX: usize = 20;

/// What is known of a location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) location: String,
    /// The version that was fetched last.
    pub(super) latest: Fetched,
    /// The version that was loaded last.
    pub(super) good: Option<Fetched>,
}

/// A fetched component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fetched {
    /// The SHA-256 of its bytes, hexadecimal.
    pub(super) sha256: String,
    /// What the server calls this version: an entity tag, or the digest of a manifest.
    pub(super) tag: Option<String>,
    /// Its signatures.
    pub(super) evidence: Evidence,
    /// When it was fetched, as Unix time.
    pub(super) at: u64,
    /// The version in its manifest, once it was loaded.
    pub(super) version: Option<String>,
}

/// A folder in the state directory.
pub(super) struct Mirror {
    folder: PathBuf,
    /// Held while files get their names or are deleted: a new component has no record yet.
    writing: Mutex<()>,
}

impl Mirror {
    pub(super) fn open(state_dir: &Path) -> Result<Self, String> {
        let folder = state_dir.join("sources");
        ensure_private_folder(&folder)?;
        Ok(Self { folder, writing: Mutex::default() })
    }

    /// A file that has no name yet.
    pub(super) fn new_file(&self) -> std::io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)
    }

    /// Writes a record. `file` is its latest component, if that is new.
    pub(super) fn store(&self, record: &Record, file: Option<NamedTempFile>) -> std::io::Result<()> {
        let _writing = self.lock();
        if let Some(file) = file {
            file.as_file().sync_all()?;
            file.persist(self.path(&record.latest.sha256)).map_err(|error| error.error)?;
        }
        let mut file = self.new_file()?;
        serde_json::to_writer_pretty(&mut file, record)?;
        file.flush()?;
        file.persist(self.record_path(&record.location)).map(drop).map_err(|error| error.error)
    }

    /// The file of a component.
    pub(super) fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{sha256}.wasm"))
    }

    /// The record of a location, if its latest component is there.
    pub(super) fn read(&self, location: &str) -> Option<Record> {
        let bytes = read_regular(&self.record_path(location), RECORD_BYTES_MAX).ok()?;
        let mut record: Record = serde_json::from_slice(&bytes).ok()?;
        record.good = record.good.filter(|good| self.path(&good.sha256).exists());
        (record.location == location && self.path(&record.latest.sha256).exists()).then_some(record)
    }

    /// Deletes the oldest records above the limit, and components that no record names. `used` are
    /// the locations of the configuration.
    pub(super) fn prune(&self, used: &[&str]) {
        let _writing = self.lock();
        let mut unused: Vec<(SystemTime, PathBuf)> = vec![];
        let mut needed = HashSet::new();
        let kept: Vec<PathBuf> = used.iter().map(|location| self.record_path(location)).collect();
        let (records, components): (Vec<PathBuf>, Vec<PathBuf>) =
            self.files().partition(|path| has_extension(path, "json"));
        for path in &records {
            let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
            if !kept.contains(path) {
                unused.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), path.clone()));
            }
        }
        unused.sort_unstable();
        let excess = unused.len().saturating_sub(UNUSED_RECORDS_MAX);
        let dropped: Vec<PathBuf> = unused.into_iter().take(excess).map(|(_, path)| path).collect();
        for path in records.iter().filter(|path| !dropped.contains(path)) {
            let record = read_regular(path, RECORD_BYTES_MAX).ok();
            let record: Option<Record> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let fetched = record.into_iter().flat_map(|record| [Some(record.latest), record.good]).flatten();
            needed.extend(fetched.map(|fetched| self.path(&fetched.sha256)));
        }
        for path in dropped.iter().chain(components.iter().filter(|path| !needed.contains(*path))) {
            let _ = fs::remove_file(path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Components and records. A file that is being written has no extension of theirs.
    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| has_extension(path, "json") || has_extension(path, "wasm"))
    }

    fn record_path(&self, location: &str) -> PathBuf {
        let name = blake3::hash(location.as_bytes()).to_hex();
        self.folder.join(format!("{}.json", &name[..32]))
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_records_and_their_components_are_deleted() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mirror = Mirror::open(folder.path()).map_err(anyhow::Error::msg)?;
        let add = |location: &str, sha256: &str| -> anyhow::Result<()> {
            let latest =
                Fetched { sha256: sha256.into(), tag: None, evidence: Evidence::default(), at: 0, version: None };
            let record = Record { location: location.into(), latest, good: None };
            Ok(mirror.store(&record, Some(mirror.new_file()?))?)
        };
        add("used", "a")?;
        for number in 0..UNUSED_RECORDS_MAX + 3 {
            add(&format!("unused{number}"), &format!("b{number}"))?;
        }
        fs::write(mirror.path("orphan"), "")?;
        mirror.prune(&["used"]);
        assert!(mirror.read("used").is_some() && !mirror.path("orphan").exists());
        let kept = (0..UNUSED_RECORDS_MAX + 3).filter(|number| mirror.read(&format!("unused{number}")).is_some());
        assert_eq!(kept.count(), UNUSED_RECORDS_MAX);
        assert_eq!(mirror.files().count(), 2 * (UNUSED_RECORDS_MAX + 1), "as many components as records");
        fs::remove_file(mirror.path("a"))?;
        assert!(mirror.read("used").is_none(), "a record without its component is none");
        Ok(())
    }
}
