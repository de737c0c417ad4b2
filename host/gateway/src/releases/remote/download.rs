//! A file that is being fetched: hashed and bounded while it is written.
//!
//! This module does not know: where the bytes come from.

use std::fs::File;
use std::io::{Read, Seek as _, Write as _};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::fetch_error::FetchError;
use super::mirror::Mirror;
use witgate_runtime::component::FILE_BYTES_MAX;

/// The bytes that arrived so far, in a file that disappears unless it is kept.
pub(super) struct Download {
    file: NamedTempFile,
    hash: Sha256,
    length: u64,
}

/// An object that was downloaded.
pub(super) struct Object {
    pub(super) download: Download,
    /// What the server calls this version.
    pub(super) tag: Option<String>,
}

impl Download {
    pub(super) fn new(mirror: &Mirror) -> Result<Self, FetchError> {
        Ok(Self { file: mirror.new_file()?, hash: Sha256::new(), length: 0 })
    }

    /// Refuses a length that a server announces.
    pub(super) fn check_length(length: u64) -> Result<(), FetchError> {
        if length > FILE_BYTES_MAX { Err(too_large(format_args!("{length} bytes"))) } else { Ok(()) }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.length += bytes.len() as u64;
        if self.length > FILE_BYTES_MAX {
            return Err(too_large("more bytes than announced"));
        }
        self.hash.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    /// Fills a download from a file.
    pub(super) fn copy(&mut self, mut from: impl Read) -> Result<(), FetchError> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            match from.read(&mut chunk)? {
                0 => return Ok(()),
                length => self.write(&chunk[..length])?,
            }
        }
    }

    /// The SHA-256 of all bytes, their number, and the file.
    pub(super) fn finish(self) -> (String, u64, NamedTempFile) {
        (hex::encode(self.hash.finalize()), self.length, self.file)
    }

    /// The file from its beginning, after its digest was compared.
    pub(super) fn verified(self, digest: &str) -> Result<File, FetchError> {
        let (found, _, file) = self.finish();
        if format!("sha256:{found}") != digest {
            return Err(FetchError::new(format_args!(
                "the server sent bytes with the digest sha256:{found} for {digest}"
            )));
        }
        let mut file = file.into_file();
        file.rewind()?;
        Ok(file)
    }
}

fn too_large(found: impl std::fmt::Display) -> FetchError {
    FetchError::new(format_args!("the object is larger than {} MiB ({found})", FILE_BYTES_MAX >> 20))
}
