//! Where a filter's component comes from: its revision, its hash and a private copy of its bytes.
//!
//! The loader knows only the trait [`Source`]. A file is one; a location on a server is another
//! (`remote/source.rs`).
//!
//! This module does not know: what is done with a component.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::content_hash::ContentHash;
use super::evidence::{Evidence, MINISIGN_BYTES_MAX};
use super::private_copy::PrivateCopy;
use crate::process::regular_file::{open_regular, read_regular};
use witgate_runtime::component::FILE_BYTES_MAX;
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

/// A component that can change over time.
pub trait Source {
    /// The location, for messages.
    fn location(&self) -> String;

    /// The current revision. It is cheap to ask for: the bytes are not read.
    ///
    /// # Errors
    /// `Unreadable` if there is no component, or it cannot be reached.
    fn revision(&self) -> Result<Revision, LoadError>;

    /// The hash of a revision's bytes.
    ///
    /// # Errors
    /// `Unreadable` if the bytes cannot be read or differ from this revision; `Limits` if they
    /// are too large.
    fn hash(&self, revision: &Revision) -> Result<ContentHash, LoadError>;

    /// A copy of a revision's bytes that later changes of the source do not affect.
    ///
    /// # Errors
    /// Those of [`hash`](Self::hash).
    fn copy(&self, revision: &Revision) -> Result<PrivateCopy, LoadError>;

    /// The signatures that came with the component.
    ///
    /// # Errors
    /// `Unreadable` if they cannot be read.
    fn evidence(&self) -> Result<Evidence, LoadError>;
}

/// A revision of one source. Two revisions are equal if the source did not change between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

/// A file, whose revision is its modification time, length and inode, and those of the signature
/// beside it.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
}

impl FileSource {
    /// The file at this path, which may not exist.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The signature beside the file: `X.wasm.minisig`.
    fn minisign_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".minisig");
        name.into()
    }

    /// Checks that a read of `length` bytes returned this revision, as a whole.
    fn check_read(&self, revision: &Revision, length: u64) -> Result<(), LoadError> {
        if length > FILE_BYTES_MAX {
            return Err(too_large());
        }
        if self.revision()? == *revision {
            return Ok(());
        }
        Err(LoadError::new(
            LoadErrorReason::Unreadable,
            "the file changed while it was read: it is read again when it stops changing",
        ))
    }
}

impl Source for FileSource {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn revision(&self) -> Result<Revision, LoadError> {
        let shown =
            |metadata: fs::Metadata| format!("{:?} {} {}", metadata.modified().ok(), metadata.len(), metadata.ino());
        let component = fs::metadata(&self.path).map(shown).map_err(unreadable)?;
        let signature = fs::metadata(self.minisign_path()).map(shown).unwrap_or_default();
        Ok(Revision(format!("{component} {signature}")))
    }

    fn hash(&self, revision: &Revision) -> Result<ContentHash, LoadError> {
        let file = open_regular(&self.path).map_err(unreadable)?;
        let (hash, length) = ContentHash::of_file(file.take(FILE_BYTES_MAX + 1)).map_err(unreadable)?;
        self.check_read(revision, length)?;
        Ok(hash)
    }

    fn copy(&self, revision: &Revision) -> Result<PrivateCopy, LoadError> {
        let copy = PrivateCopy::read(&self.path, FILE_BYTES_MAX).map_err(unreadable)?;
        self.check_read(revision, copy.bytes().len() as u64)?;
        Ok(copy)
    }

    fn evidence(&self) -> Result<Evidence, LoadError> {
        let path = self.minisign_path();
        if !path.exists() {
            return Ok(Evidence::default());
        }
        let bytes = read_regular(&path, MINISIGN_BYTES_MAX).map_err(|error| {
            LoadError::new(LoadErrorReason::Unreadable, format!("{}: {error}", path.display())).with_source(error)
        })?;
        let minisign = Some(String::from_utf8_lossy(&bytes).into_owned());
        Ok(Evidence { minisign, ..Evidence::default() })
    }
}

fn too_large() -> LoadError {
    LoadError::new(LoadErrorReason::Limits, format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20))
}

fn unreadable(error: std::io::Error) -> LoadError {
    let message = format!("{error}; build the filter, or correct its `source`");
    LoadError::new(LoadErrorReason::Unreadable, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_another_revision_and_cannot_be_read_as_the_old_one() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f.wasm");
        let source = FileSource::new(&path);
        assert_eq!(source.revision().err().map(|error| error.reason), Some(LoadErrorReason::Unreadable));
        fs::write(&path, "one")?;
        let one = source.revision()?;
        assert_eq!(source.revision()?, one);
        assert_eq!(source.hash(&one)?, ContentHash::of(b"one"));
        assert_eq!(source.copy(&one)?.bytes(), b"one");
        fs::write(&path, "three")?;
        let three = source.revision()?;
        assert_ne!(three, one);
        assert!(source.hash(&one).is_err() && source.copy(&one).is_err());
        assert_eq!(source.hash(&three)?, ContentHash::of(b"three"));
        Ok(())
    }
}
