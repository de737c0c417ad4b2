//! Memory that the gateway gives back to the system: no huge pages, and freed memory of idle
//! threads.
//!
//! Gain: without huge pages the kernel clears 4 KiB and not 2 MiB when a request touches new
//! memory, and the resident size stays small. Price: more entries in the page table and the TLB,
//! which a process of this size does not notice.
//!
//! This module does not know: who allocates.

/// Allows or forbids huge pages for this process and its future children.
///
/// # Errors
/// The error of prctl(2).
#[allow(unsafe_code)]
pub fn allow_huge_pages(allowed: bool) -> std::io::Result<()> {
    // SAFETY: the call takes no pointers; its unused arguments must be zero.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, libc::c_ulong::from(!allowed), 0_u64, 0_u64, 0_u64) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Returns the memory that the calling thread freed to the system. This takes up to some
/// milliseconds, so only idle threads call it.
#[allow(unsafe_code)]
pub fn release_freed() {
    // SAFETY: any thread may call this function at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
