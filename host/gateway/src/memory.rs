//! What of its memory the gateway leaves to the system.
//!
//! The allocator asks for huge pages. A gateway is small: of each 2 MiB that the kernel clears while a request waits, most is never used. And what a load needed stays with the thread that
//! needed it, unless somebody asks. Must not know: who allocates.

/// Whether the kernel may put huge pages where the allocator wants them; for this process, and those that it starts.
#[allow(unsafe_code)]
pub fn allow_huge_pages(allowed: bool) -> std::io::Result<()> {
    // SAFETY: no pointers; the unused arguments must be zero.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, libc::c_ulong::from(!allowed), 0_u64, 0_u64, 0_u64) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Gives back what the calling thread freed. Takes up to some milliseconds: for a thread that has nothing to do.
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: may be called at any time by any thread.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
