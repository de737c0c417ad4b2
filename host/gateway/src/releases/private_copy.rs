//! A copy of a file's bytes in memory that nothing changes afterwards.
//!
//! Gain: the checked bytes are the compiled bytes, whatever happens to the file; and all of the
//! memory returns to the system on drop, which an allocator does not promise for such a buffer.
//! Price: own mappings with `unsafe`. They are unmapped chunk by chunk, because unmapping 7 MB in
//! one call occupies a core for 1.5 ms and delays serving threads; this excludes a memory file.
//!
//! This module does not know: what the bytes are.

use std::io::{self, Read as _};
use std::path::Path;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::process::regular_file::open_regular;
use witgate_runtime::chunks::{CHUNK_BYTES, read_chunks};

/// Read-only bytes in a mapping of their own.
pub struct PrivateCopy {
    start: NonNull<u8>,
    length: usize,
    /// Mapped bytes, a multiple of [`CHUNK_BYTES`].
    mapped: usize,
}

impl PrivateCopy {
    /// Copies a file, but at most `bytes_max` + 1 bytes: the additional byte shows that the file is
    /// larger.
    pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let most = bytes_max.saturating_add(1);
        let reserved = usize::try_from(most).map_err(io::Error::other)?;
        let mut copy = Self::reserve(reserved.next_multiple_of(CHUNK_BYTES))?;
        read_chunks(open_regular(path)?.take(most), |chunk| {
            copy.append(chunk);
            Ok(())
        })?;
        copy.make_read_only()?;
        Ok(copy)
    }

    /// The copied bytes.
    #[allow(unsafe_code)]
    pub const fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes are written, and after `make_read_only` nothing writes to them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// Reserves addresses, which use no memory before they are written.
    #[allow(unsafe_code)]
    fn reserve(bytes: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses affects no other memory.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE | MapFlags::NORESERVE)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("a mapping at address 0"))?;
        Ok(Self { start, length: 0, mapped: bytes })
    }

    #[allow(unsafe_code)]
    fn append(&mut self, chunk: &[u8]) {
        assert!(chunk.len() <= self.mapped - self.length, "the reader returns at most the reserved number of bytes");
        // SAFETY: by the assertion the bytes are inside the writable mapping, and `self` owns it.
        unsafe { self.start.as_ptr().add(self.length).copy_from_nonoverlapping(chunk.as_ptr(), chunk.len()) };
        self.length += chunk.len();
    }

    /// Unmaps the unused end and removes the permission to write.
    #[allow(unsafe_code)]
    fn make_read_only(&mut self) -> io::Result<()> {
        let used = self.length.next_multiple_of(CHUNK_BYTES);
        if used < self.mapped {
            // SAFETY: this part is reserved and unwritten, so nothing borrows it.
            unsafe { munmap(self.start.as_ptr().add(used).cast(), self.mapped - used)? };
            self.mapped = used;
        }
        if used > 0 {
            // SAFETY: `self` owns the mapping, and nothing borrows it for writing.
            unsafe { mprotect(self.start.as_ptr().cast(), used, MprotectFlags::READ)? };
        }
        Ok(())
    }
}

impl Drop for PrivateCopy {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        for begin in (0..self.mapped).step_by(CHUNK_BYTES) {
            // SAFETY: `reserve` mapped it, and nothing borrows from `self`. An error could only
            // mean that it is not mapped.
            let _ = unsafe { munmap(self.start.as_ptr().add(begin).cast(), CHUNK_BYTES) };
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_change_with_its_file() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        std::fs::write(&path, "hello")?;
        let copy = PrivateCopy::read(&path, 100)?;
        std::fs::write(&path, "HELLO and more")?;
        assert_eq!((copy.bytes(), copy.mapped), (b"hello".as_slice(), CHUNK_BYTES));
        assert_eq!(PrivateCopy::read(&path, 4)?.bytes().len(), 5, "one byte above the maximum shows a larger file");
        std::fs::write(&path, "")?;
        assert_eq!(PrivateCopy::read(&path, 4)?.bytes(), b"");
        let large = vec![7; 3 * CHUNK_BYTES];
        std::fs::write(&path, &large)?;
        for bytes_max in [large.len() - 1, large.len(), large.len() + CHUNK_BYTES] {
            assert_eq!(PrivateCopy::read(&path, bytes_max as u64)?.bytes(), large);
        }
        Ok(())
    }
}
