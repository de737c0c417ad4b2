//! The BLAKE3 hash of a component's bytes: its name in the cache.
//!
//! This module does not know: where the bytes come from.

use std::io;

use witgate_runtime::chunks::{for_each_chunk, read_chunks};

/// Identifies a component by its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHash(blake3::Hash);

impl ContentHash {
    /// Hashes bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for_each_chunk(bytes, |chunk| {
            hasher.update(chunk);
        });
        Self(hasher.finalize())
    }

    /// Hashes a file without reading it into memory as a whole. Returns its length as well.
    pub(super) fn of_file(file: impl io::Read) -> io::Result<(Self, u64)> {
        let mut hasher = blake3::Hasher::new();
        update_from_file(&mut hasher, file)?;
        Ok((Self(hasher.finalize()), hasher.count()))
    }

    /// From 64 hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(Self)
    }

    /// As 64 hexadecimal digits.
    pub(super) fn to_hex(self) -> String {
        self.0.to_hex().to_string()
    }
}

/// Adds the rest of a file to a hash.
pub(super) fn update_from_file(hasher: &mut blake3::Hasher, file: impl io::Read) -> io::Result<()> {
    read_chunks(file, |chunk| {
        hasher.update(chunk);
        Ok(())
    })
    .map(drop)
}
