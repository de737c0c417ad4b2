//! A component in a tar archive, which image builders make.
//!
//! Only the bytes of one regular file are read: no name of the archive becomes a path. This module
//! does not know: registries.

use std::io::Read;

use tar::EntryType;

use crate::releases::remote::download::Download;
use crate::releases::remote::fetch_error::FetchError;
use witgate_runtime::component::FILE_BYTES_MAX;

const ENTRIES_MAX: usize = 1000;
/// Unpacked bytes: a component, and headers and padding.
const ARCHIVE_BYTES_MAX: u64 = FILE_BYTES_MAX + (2 << 20);

/// Copies the only .wasm file of an archive. The unpacked bytes are bounded, because a small
/// archive can have many.
pub(in crate::releases::remote) fn unpack(archive: impl Read, component: &mut Download) -> Result<(), FetchError> {
    let mut bounded = Bounded { inner: archive, left: ARCHIVE_BYTES_MAX };
    let mut archive = tar::Archive::new(&mut bounded);
    let entries = archive.entries().map_err(explain)?;
    let mut found = false;
    for (index, entry) in entries.enumerate() {
        let entry = entry.map_err(explain)?;
        if index >= ENTRIES_MAX {
            return Err(FetchError::new(format_args!("the layer has more than {ENTRIES_MAX} files")));
        }
        let is_file = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous);
        if !is_file || !entry.path_bytes().ends_with(b".wasm") {
            continue;
        }
        if std::mem::replace(&mut found, true) {
            return Err(FetchError::new("the layer has more than one .wasm file"));
        }
        Download::check_length(entry.size())?;
        component.copy(Unpacked(entry))?;
    }
    if found { Ok(()) } else { Err(FetchError::new("the layer has no .wasm file")) }
}

/// Marks an error of the archive, so that it is not taken for an error of the state directory.
struct Unpacked<R>(R);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|error| std::io::Error::other(format!("the layer cannot be unpacked: {error}")))
    }
}

/// Fails after a number of bytes, instead of ending as if the archive were complete.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| std::io::Error::other(format!("it unpacks to more than {} MiB", ARCHIVE_BYTES_MAX >> 20)))?;
        Ok(length)
    }
}

fn explain(error: std::io::Error) -> FetchError {
    FetchError::new(format_args!("the layer cannot be unpacked: {error}"))
}
