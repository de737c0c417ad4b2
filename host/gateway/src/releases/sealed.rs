//! A file's bytes as they were at one moment: copied into memory of this process that is only read from then on.
//!
//! What was checked is then what is compiled, whatever becomes of the file; and all of it goes back to the system when it is dropped, which an allocator does not promise for a buffer of that size. It goes in pieces, as
//! it came: to free 7 MB in one system call keeps a core for a millisecond and a half, whoever waits for it (`priority.rs`). So it is no memory file, which goes as a whole. Must not know: what the bytes are.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use witgate_runtime::chunks::CHUNK_BYTES;
use witgate_runtime::chunks::read_chunks;

/// Bytes in memory of their own.
pub struct Sealed {
    at: NonNull<u8>,
    length: usize,
    /// Bytes that are mapped, in whole pieces.
    mapped: usize,
}

impl Sealed {
    /// Copies at most `bytes_max` and one byte of a file.
    pub fn copy(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let most = bytes_max.saturating_add(1);
        let room = usize::try_from(most).map_err(io::Error::other)?;
        let mut sealed = Self::reserve(room.next_multiple_of(CHUNK_BYTES))?;
        read_chunks(File::open(path)?.take(most), |piece| {
            sealed.append(piece);
            Ok(())
        })?;
        sealed.seal()?;
        Ok(sealed)
    }

    /// The bytes.
    #[allow(unsafe_code)]
    pub const fn bytes(&self) -> &[u8] {
        // SAFETY: so many were written, and since `seal` nobody can write any more.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.length) }
    }

    /// Addresses for so many bytes, which take no memory before they are written.
    #[allow(unsafe_code)]
    fn reserve(bytes: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice concerns no other memory.
        let at =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE | MapFlags::NORESERVE)? };
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("a mapping at 0"))?;
        Ok(Self { at, length: 0, mapped: bytes })
    }

    #[allow(unsafe_code)]
    fn append(&mut self, piece: &[u8]) {
        assert!(piece.len() <= self.mapped - self.length, "the reader gives no more than there is room for");
        // SAFETY: mapped and writable, by the line above, and nobody else's.
        unsafe { self.at.as_ptr().add(self.length).copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
        self.length += piece.len();
    }

    #[allow(unsafe_code)]
    fn seal(&mut self) -> io::Result<()> {
        let used = self.length.next_multiple_of(CHUNK_BYTES);
        if used < self.mapped {
            // SAFETY: what was reserved and not written: nobody has borrowed it.
            unsafe { munmap(self.at.as_ptr().add(used).cast(), self.mapped - used)? };
            self.mapped = used;
        }
        if used > 0 {
            // SAFETY: its own memory, which nobody has borrowed for writing.
            unsafe { mprotect(self.at.as_ptr().cast(), used, MprotectFlags::READ)? };
        }
        Ok(())
    }
}

impl Drop for Sealed {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        for begin in (0..self.mapped).step_by(CHUNK_BYTES) {
            // SAFETY: mapped by `reserve`, and nobody borrows from self any more. An error could only mean that it is not mapped.
            let _ = unsafe { munmap(self.at.as_ptr().add(begin).cast(), CHUNK_BYTES) };
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_stays() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        std::fs::write(&path, "hello")?;
        let sealed = Sealed::copy(&path, 100)?;
        std::fs::write(&path, "HELLO and more")?;
        assert_eq!((sealed.bytes(), sealed.mapped), (b"hello".as_slice(), CHUNK_BYTES));
        assert_eq!(Sealed::copy(&path, 4)?.bytes().len(), 5, "one more than allowed shows that there is more");
        std::fs::write(&path, "")?;
        assert_eq!(Sealed::copy(&path, 4)?.bytes(), b"");
        let large = vec![7; 3 * CHUNK_BYTES];
        std::fs::write(&path, &large)?;
        for bytes_max in [large.len() - 1, large.len(), large.len() + CHUNK_BYTES] {
            assert_eq!(Sealed::copy(&path, bytes_max as u64)?.bytes(), large);
        }
        Ok(())
    }
}
