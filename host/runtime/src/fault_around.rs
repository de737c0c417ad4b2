//! Disables the kernel's fault-around for the memories of filters.
//!
//! When a guest reads a page for the first time, the kernel also maps the pages around it, sixteen
//! together. That helps a program that reads on, but an interpreter reads pages here and there, and
//! the scan for written pages after each call visits every mapped page.
//!
//! Gain: a call of CPython needs 130 pages of its image, and with fault-around 1,300 are mapped.
//! Price: one page fault per page that is touched. The only way to tell the kernel is to register
//! the memory for userfaultfd (userfaultfd(2); `uffd_disable_fault_around` in the kernel's mm).
//! Nothing else of userfaultfd is used: no page is protected, no fault is reported. If it is not
//! permitted, as in containers by default, fault-around stays enabled.
//! This module does not know: filters.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use rustix::param::page_size;

use crate::pool_range::PoolRange;

/// Only faults of user code, which needs no privilege (UFFD_USER_MODE_ONLY).
const USER_MODE_ONLY: u32 = 1;
const API: Opcode = opcode::read_write::<Api>(0xAA, 0x3F);
const API_VERSION: u64 = 0xAA;
/// Permits to register a memory that maps any kind of file (UFFD_FEATURE_WP_ASYNC, Linux 6.7).
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

/// The descriptor with which memories are registered. Closing it would unregister them.
static USERFAULTFD: LazyLock<io::Result<OwnedFd>> = LazyLock::new(open);

/// Whether the system permits to disable fault-around.
///
/// # Errors
///
/// Why it does not.
pub(super) fn is_supported() -> Result<(), &'static io::Error> {
    USERFAULTFD.as_ref().map(drop)
}

/// Disables fault-around for all memories that are mapped in the pool. Succeeds without effect if
/// the system does not permit it.
pub(super) fn disable(pool: PoolRange) -> io::Result<()> {
    let Ok(faults) = &*USERFAULTFD else { return Ok(()) };
    let (start, length) = (pool.first * page_size(), (pool.end - pool.first) * page_size());
    if length == 0 {
        return Ok(());
    }
    register(faults, Register { start: start as u64, length: length as u64, mode: WRITE_PROTECT, ioctls: 0 })
}

#[allow(unsafe_code)]
fn open() -> io::Result<OwnedFd> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
    // SAFETY: registration changes nothing for users of the memory, see `register`.
    let faults = unsafe { userfaultfd(flags)? };
    let mut api = Api { version: API_VERSION, features: WRITE_PROTECT_ASYNC, ioctls: 0 };
    // SAFETY: the request takes this structure (ioctl_userfaultfd(2)).
    unsafe { ioctl(&faults, Updater::<API, Api>::new(&mut api))? };
    Ok(faults)
}

#[allow(unsafe_code)]
fn register(faults: &OwnedFd, mut memory: Register) -> io::Result<()> {
    // SAFETY: the request takes this structure. It permits to write-protect pages, but nobody does,
    // so no access is delayed and no content changes.
    unsafe { ioctl(faults, Updater::<REGISTER, Register>::new(&mut memory))? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::pool_range::tests::{PAGES, Slot};

    /// The number of pages of a slot that are mapped.
    fn present(slot: &Slot) -> Result<usize, Box<dyn Error>> {
        let mut entries = vec![0; PAGES * 8];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, slot.pool().first as u64 * 8)?;
        Ok(entries.as_chunks::<8>().0.iter().filter(|entry| u64::from_ne_bytes(**entry) >> 63 == 1).count())
    }

    #[test]
    fn only_the_page_that_is_read_is_mapped_if_the_system_permits_it() -> Result<(), Box<dyn Error>> {
        let usual = Slot::new()?;
        assert_eq!((usual.read(100), present(&usual)? > 1), (100, true), "the kernel maps neighbours too");
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
