//! The secret key of a state directory, which authenticates the files that the gateway writes
//! there.
//!
//! This module does not know: what is authenticated.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::process::private_folder::ensure_private_folder;
use crate::process::regular_file::open_regular;

/// The length of a key.
pub(super) const KEY_BYTES: usize = 32;

/// A secret key. Its `Debug` does not show it.
#[derive(Clone)]
pub(super) struct StateKey([u8; KEY_BYTES]);

impl std::fmt::Debug for StateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StateKey(…)")
    }
}

impl StateKey {
    /// Reads the key of a state directory, or creates it.
    ///
    /// # Errors
    /// A message for the operator if other users can read the key or write to the directory.
    pub(super) fn open(state: &Path) -> Result<Self, String> {
        let folder = state.join("artifacts");
        ensure_private_folder(&folder)?;
        let path = folder.join("key");
        read_or_create(&path).map(Self).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A key for one purpose, from which neither this key nor that of another purpose follows.
    pub(super) fn derive(&self, purpose: &str) -> Self {
        Self(*self.hasher(purpose).finalize().as_bytes())
    }

    /// The key for the cache of functions, which is all that a compiling process gets.
    pub(super) fn for_functions(&self) -> Self {
        self.derive("functions cache")
    }

    /// The bytes, to pass a derived key to a compiling process.
    pub(super) const fn to_bytes(&self) -> [u8; KEY_BYTES] {
        self.0
    }

    /// A key that another process derived.
    pub(super) const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A keyed hasher. Different purposes give different hashes of the same bytes.
    pub(super) fn hasher(&self, purpose: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(purpose.len() as u64).to_le_bytes());
        hasher.update(purpose.as_bytes());
        hasher
    }
}

fn read_or_create(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    match open_regular(path) {
        Ok(mut file) => {
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                return Err(io::Error::other("other users can read it: delete it, and the gateway creates a new one"));
            }
            file.read_exact(&mut key)?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            getrandom::fill(&mut key).map_err(io::Error::other)?;
            // The key gets its name after it is complete, because another gateway may read it at
            // once.
            let temporary = path.with_extension(std::process::id().to_string());
            let created = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
            created.and_then(|mut file| file.write_all(&key))?;
            let linked = fs::hard_link(&temporary, path);
            fs::remove_file(&temporary)?;
            match linked {
                Ok(()) => Ok(key),
                // Another process created the key first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_or_create(path),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_and_is_refused_if_other_users_can_read_it() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let fail = anyhow::Error::msg::<String>;
        let key = StateKey::open(folder.path()).map_err(fail)?;
        assert_eq!(StateKey::open(folder.path()).map_err(fail)?.0, key.0);
        fs::set_permissions(folder.path().join("artifacts/key"), fs::Permissions::from_mode(0o644))?;
        assert!(StateKey::open(folder.path()).is_err());
        Ok(())
    }
}
