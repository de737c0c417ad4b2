//! A file's bytes as they were at one moment: copied by the kernel into memory that nobody can change any more.
//!
//! What was checked is then what is compiled, whatever becomes of the file; and all of it goes back to the system when it is dropped, which an allocator does
//! not promise for a buffer of that size. Must not know: what the bytes are.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::priority::{PIECE, read_in_pieces};

/// Bytes in a sealed memory file, mapped.
pub struct Sealed {
    file: File,
    map: Option<(NonNull<u8>, usize)>,
}

impl Sealed {
    /// Copies at most `bytes_max` and one byte of a file.
    pub fn copy(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut memory = File::from(memfd_create("component", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        let length = read_in_pieces(File::open(path)?.take(bytes_max + 1), |piece| memory.write_all(piece))?;
        fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self { map: (length > 0).then(|| map(&memory, length)).transpose()?.map(|at| (at, length)), file: memory })
    }

    /// The bytes.
    #[allow(unsafe_code)]
    pub fn bytes(&self) -> &[u8] {
        match self.map {
            // SAFETY: the mapping is readable, of this length, lives as long as self, and the seals keep its memory from changing or shrinking.
            Some((at, length)) => unsafe { std::slice::from_raw_parts(at.as_ptr(), length) },
            None => &[],
        }
    }

    /// Another handle that reads from the start: for another process.
    pub fn reader(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

#[allow(unsafe_code)]
fn map(file: &File, length: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at a place of the kernel's choice concerns no other memory.
    let at = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("a mapping at 0"))
}

impl Drop for Sealed {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if let Some((at, length)) = self.map {
            // In pieces, for the same reason as it is read in pieces (`priority.rs`).
            for begin in (0..length).step_by(PIECE) {
                // SAFETY: mapped by `map`, and nobody borrows from self any more. An error could only mean that it is not mapped.
                let _ = unsafe { munmap(at.as_ptr().add(begin).cast(), PIECE.min(length - begin)) };
                std::thread::yield_now();
            }
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
        assert_eq!(sealed.bytes(), b"hello");
        let mut read = String::new();
        sealed.reader()?.read_to_string(&mut read)?;
        assert_eq!(read, "hello");
        assert!(sealed.file.set_len(1).is_err(), "it is sealed");
        assert_eq!(Sealed::copy(&path, 4)?.bytes().len(), 5, "one more than allowed shows that there is more");
        std::fs::write(&path, "")?;
        assert_eq!(Sealed::copy(&path, 4)?.bytes(), b"");
        Ok(())
    }
}
