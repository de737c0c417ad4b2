//! The values of `{env: NAME}` and `{file: PATH}` in gateway.yaml.
//!
//! The list of files is kept, so that a reload notices when one of them changes. A value appears in
//! no message.
//!
//! This module does not know: where a reference stands.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::process::regular_file::read_regular;
use witgate_config::References;

/// The maximum size of a file with a value.
const VALUE_BYTES_MAX: u64 = 64 << 10;

/// Looks up references, and remembers the files.
#[derive(Debug, Clone, Default)]
pub(super) struct FileReferences(Arc<Mutex<Vec<(PathBuf, Digest)>>>);

type Digest = [u8; 32];

impl FileReferences {
    /// Empties the list of files, before a text is parsed.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// The files that were asked for, whether they exist or not.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.lock().iter().map(|(path, _)| path.clone()).collect()
    }

    /// A digest of the files' content as it is. It differs from that of the values in use when a
    /// file appears, changes or disappears.
    pub(super) fn digest(&self) -> Digest {
        combine(self.paths().iter().map(|path| digest_of(&read_regular(path, VALUE_BYTES_MAX))))
    }

    /// The digest of the values in use.
    pub(super) fn digest_in_use(&self) -> Digest {
        combine(self.lock().iter().map(|(_, digest)| *digest))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, Digest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl References for FileReferences {
    fn env(&self, name: &str) -> Result<String, String> {
        std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => "the environment variable is not set for the gateway: set it".into(),
            std::env::VarError::NotUnicode(_) => "the value of the environment variable is not UTF-8".into(),
        })
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        let read = read_regular(path, VALUE_BYTES_MAX);
        self.lock().push((path.to_owned(), digest_of(&read)));
        let bytes = read.map_err(|error| format!("{}: {error}; let the gateway's user read it", path.display()))?;
        let mut text = String::from_utf8(bytes).map_err(|_| format!("{}: is not UTF-8", path.display()))?;
        // Editors and `echo` add a line break, which belongs to no secret.
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }
}

fn digest_of(read: &std::io::Result<Vec<u8>>) -> Digest {
    match read {
        Ok(bytes) => Sha256::digest(bytes).into(),
        Err(error) => Sha256::digest(format!("error {error}")).into(),
    }
}

fn combine(digests: impl Iterator<Item = Digest>) -> Digest {
    digests.fold(Sha256::new(), |hash, digest| hash.chain_update(digest)).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_text_without_the_last_line_break() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (path, references) = (folder.path().join("secret"), FileReferences::default());
        let missing = references.file(&path).err().unwrap_or_default();
        assert!(missing.contains("No such file"), "{missing}");
        assert_eq!(references.digest(), references.digest_in_use());
        for (content, value) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")] {
            std::fs::write(&path, content)?;
            assert_eq!(references.file(&path), Ok(value.to_owned()), "{content:?}");
        }
        assert_ne!(references.digest(), references.digest_in_use(), "the first read found no file");
        std::fs::write(&path, vec![b'x'; VALUE_BYTES_MAX as usize + 1])?;
        assert!(references.file(&path).is_err_and(|why| why.contains("larger than the limit of 65536 bytes")));
        assert!(references.env("WITGATE_NO_SUCH_VARIABLE").is_err_and(|why| why.contains("is not set")));
        Ok(())
    }
}
