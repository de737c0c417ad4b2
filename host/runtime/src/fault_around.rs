//! Lets the pages of a filter's memory come in one by one.
//!
//! When a guest reads a page for the first time the kernel maps those around it too, sixteen at once: cheap for a program that reads on, but an interpreter looks at a page here and a page there, and
//! all that is mapped is gone through after every call to find what was written. Of CPython's image a call needs 130 pages, and 1,300 were mapped. The one way to tell the kernel so is to register
//! a memory for userfaultfd (userfaultfd(2); `uffd_disable_fault_around` in the kernel's mm). Nothing else of it is used: no page is protected, no fault is reported. Where it is not permitted, as in containers by default, all works as it
//! does without. Must not know: filters.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use rustix::param::page_size;

use super::pool_range::PoolRange;

/// For faults of user code only, which needs no privilege (UFFD_USER_MODE_ONLY).
const USER_MODE_ONLY: u32 = 1;
const API: Opcode = opcode::read_write::<Api>(0xAA, 0x3F);
const API_VERSION: u64 = 0xAA;
/// With it a memory whose image is any kind of file can be registered (UFFD_FEATURE_WP_ASYNC, Linux 6.7).
const WRITE_PROTECT_ASYNC: u64 = 1 << 15;
const REGISTER: Opcode = opcode::read_write::<Register>(0xAA, 0x00);
const WRITE_PROTECT: u64 = 1 << 1;

#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// What memories are registered with; closed it would forget them.
static FAULTS: LazyLock<io::Result<OwnedFd>> = LazyLock::new(open);

/// Whether the system permits it.
pub(super) fn is_supported() -> Result<(), &'static io::Error> {
    FAULTS.as_ref().map(drop)
}

/// From now on each page of the memories that are mapped now comes in alone.
pub(super) fn disable(pool: PoolRange) -> io::Result<()> {
    let Ok(faults) = &*FAULTS else { return Ok(()) };
    let (start, length) = (pool.first * page_size(), (pool.end - pool.first) * page_size());
    if length == 0 {
        return Ok(());
    }
    register(faults, Register { start: start as u64, length: length as u64, mode: WRITE_PROTECT, ioctls: 0 })
}

#[allow(unsafe_code)]
fn open() -> io::Result<OwnedFd> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
    // SAFETY: what is registered with it stays as it is for whoever uses it: see `register`.
    let faults = unsafe { userfaultfd(flags)? };
    let mut api = Api { version: API_VERSION, features: WRITE_PROTECT_ASYNC, ioctls: 0 };
    // SAFETY: this request takes such a structure (ioctl_userfaultfd(2)).
    unsafe { ioctl(&faults, Updater::<API, Api>::new(&mut api))? };
    Ok(faults)
}

#[allow(unsafe_code)]
fn register(faults: &OwnedFd, mut memory: Register) -> io::Result<()> {
    // SAFETY: as above. Pages can be protected against writing from now on, but nobody does that, so no access is held up and no content changes.
    unsafe { ioctl(faults, Updater::<REGISTER, Register>::new(&mut memory))? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::super::pool_range::tests::{PAGES, Slot};
    use super::*;

    /// How many pages of a slot are mapped.
    fn present(slot: &Slot) -> Result<usize, Box<dyn Error>> {
        let mut entries = vec![0; PAGES * 8];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, slot.pool().first as u64 * 8)?;
        Ok(entries.as_chunks::<8>().0.iter().filter(|entry| u64::from_ne_bytes(**entry) >> 63 == 1).count())
    }

    #[test]
    fn a_page_that_is_read_comes_alone_where_the_system_permits_it() -> Result<(), Box<dyn Error>> {
        let usual = Slot::new()?;
        assert_eq!((usual.read(100), present(&usual)? > 1), (100, true), "the kernel maps more than it is asked for");
        let slot = Slot::new()?;
        disable(slot.pool())?;
        assert_eq!(slot.read(100), 100);
        let alone = present(&slot)?;
        assert_eq!(alone == 1, is_supported().is_ok(), "{alone}");
        slot.write(100, 7);
        slot.write(150, 8);
        assert_eq!((slot.read(100), slot.read(101), slot.read(150)), (7, 101, 8));
        Ok(())
    }
}
