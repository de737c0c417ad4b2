//! The address range of the pool's memories, and which of their pages were written.
//!
//! wasmtime does not tell the address of its pool. It reserves room for all memories in one
//! mapping before the first is used, and that is by far the largest mapping of the process. The
//! range is for work that wasmtime leaves to the kernel (`coalesce`, `fault_around`): such work
//! must be correct for any user of the pages. This module does not know: filters.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;

use rustix::param::page_size;

/// The room of one memory in bytes. A smaller mapping is not the pool.
pub(crate) const SLOT_BYTES_MIN: usize = 4 << 30;
/// The number of runs that one request to the kernel returns.
const RUNS_PER_SCAN: usize = 256;

/// The page numbers of the pool's memories in this process. Empty if the pool was not found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PoolRange {
    pub(crate) first: usize,
    pub(crate) end: usize,
}

impl PoolRange {
    /// Finds the range. The pool must exist and must not be in use yet.
    pub(crate) fn find() -> io::Result<Self> {
        // Afterwards the process may give up the right to open it. Not every kernel has it.
        let _ = pagemap();
        let maps = fs::read_to_string("/proc/self/maps")?;
        let reserved = maps.lines().filter_map(reserved).max_by_key(ExactSizeIterator::len).unwrap_or_default();
        let reserved = if reserved.len() < SLOT_BYTES_MIN { 0..0 } else { reserved };
        Ok(Self { first: reserved.start / page_size(), end: reserved.end / page_size() })
    }

    /// The runs of pages that were written since they were mapped, in the sense of wasmtime.
    pub(crate) fn written(self) -> io::Result<Vec<Range<usize>>> {
        let pagemap = pagemap()?;
        let mut runs = vec![];
        let mut next = self.first;
        while next < self.end {
            next = scan(pagemap, next..self.end, &mut runs)?;
        }
        Ok(runs)
    }
}

/// The page map of this process, which is opened once.
fn pagemap() -> io::Result<&'static File> {
    static PAGEMAP: OnceLock<io::Result<File>> = OnceLock::new();
    let opened = PAGEMAP.get_or_init(|| File::open("/proc/self/pagemap"));
    opened.as_ref().map_err(|error| io::Error::from(error.kind()))
}

/// The addresses of a mapping without access rights: a reservation.
fn reserved(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    (words.next()? == "---p").then_some(address(start)?..address(end)?)
}

/// `struct pm_scan_arg` (PAGEMAP_SCAN(2const), Linux 6.7).
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    runs: u64,
    runs_length: u64,
    pages_max: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    returned: u64,
}

/// `struct page_region`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Region {
    start: u64,
    end: u64,
    _categories: u64,
}

/// Appends the runs of private pages in order. Returns the page before which the kernel stopped.
#[allow(unsafe_code)]
fn scan(pagemap: &File, pages: Range<usize>, runs: &mut Vec<Range<usize>>) -> io::Result<usize> {
    const REQUEST: libc::c_ulong = 0xC060_6610;
    const FILE: u64 = 1 << 2;
    const PRESENT: u64 = 1 << 3;
    const ZERO: u64 = 1 << 5;
    let mut regions = [Region::default(); RUNS_PER_SCAN];
    let mut request = Scan {
        size: size_of::<Scan>() as u64,
        flags: 0,
        start: (pages.start * page_size()) as u64,
        end: (pages.end * page_size()) as u64,
        walk_end: 0,
        runs: regions.as_mut_ptr().expose_provenance() as u64,
        runs_length: RUNS_PER_SCAN as u64,
        pages_max: 0,
        // Pages of neither a file nor the shared page of zeros.
        inverted: FILE | ZERO,
        all_of: PRESENT | FILE | ZERO,
        any_of: 0,
        returned: 0,
    };
    // SAFETY: the kernel reads this structure, and writes its `walk_end` and at most
    // RUNS_PER_SCAN regions.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), REQUEST, &raw mut request) };
    let found = usize::try_from(found).map_err(|_| io::Error::last_os_error())?;
    let page = |address: u64| address as usize / page_size();
    runs.extend(regions.iter().take(found).map(|region| page(region.start)..page(region.end)));
    match page(request.walk_end) {
        end if end > pages.start => Ok(end),
        _ => Err(io::Error::other("the scan of the page map makes no progress")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::error::Error;
    use std::os::unix::fs::FileExt as _;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

    use super::*;

    const RESERVED: usize = 64 << 20;
    pub(crate) const PAGES: usize = 600;

    /// A slot of a pool: a writable image, then reserved memory.
    pub(crate) struct Slot(*mut u8);

    #[allow(unsafe_code)]
    impl Slot {
        /// A slot whose image holds the number of each page in that page.
        pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
            let image = File::from(memfd_create("image", MemfdFlags::CLOEXEC)?);
            ftruncate(&image, (PAGES * page_size()) as u64)?;
            for page in 0..PAGES {
                image.write_all_at(&[page as u8], (page * page_size()) as u64)?;
            }
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping, and another over its beginning.
            unsafe {
                let slot = mmap_anonymous(std::ptr::null_mut(), RESERVED, ProtFlags::empty(), MapFlags::PRIVATE)?;
                mmap(slot, PAGES * page_size(), access, MapFlags::PRIVATE | MapFlags::FIXED, &image, 0)?;
                Ok(Self(slot.cast()))
            }
        }

        fn byte(&self, page: usize) -> *mut u8 {
            assert!(page < PAGES);
            self.0.wrapping_add(page * page_size())
        }

        pub(crate) fn read(&self, page: usize) -> u8 {
            // SAFETY: the address is within the image, and no other thread writes there.
            unsafe { self.byte(page).read_volatile() }
        }

        pub(crate) fn write(&self, page: usize, value: u8) {
            // SAFETY: as above.
            unsafe { self.byte(page).write_volatile(value) }
        }

        /// A pool that has only this slot.
        pub(crate) fn pool(&self) -> PoolRange {
            let first = self.0.addr() / page_size();
            PoolRange { first, end: first + RESERVED / page_size() }
        }

        /// The same runs, with page numbers relative to the slot.
        pub(crate) fn relative(&self, runs: &[Range<usize>]) -> Vec<Range<usize>> {
            let first = self.pool().first;
            runs.iter().map(|run| run.start - first..run.end - first).collect()
        }
    }

    #[allow(unsafe_code)]
    impl Drop for Slot {
        fn drop(&mut self) {
            // SAFETY: nothing refers to the slot.
            let _ = unsafe { munmap(self.0.cast(), RESERVED) };
        }
    }

    #[test]
    fn only_pages_that_were_written_are_found() -> Result<(), Box<dyn Error>> {
        let slot = Slot::new()?;
        for page in 0..PAGES {
            slot.read(page);
        }
        assert!(slot.pool().written()?.is_empty());
        for page in [0, 5, 6, PAGES - 1] {
            slot.write(page, 0xff);
        }
        assert_eq!(slot.relative(&slot.pool().written()?), [0..1, 5..7, PAGES - 1..PAGES]);
        // More runs than one request returns.
        (0..PAGES / 2).for_each(|run| slot.write(2 * run, 0xff));
        const { assert!(PAGES / 2 > RUNS_PER_SCAN) }
        assert_eq!(slot.pool().written()?.len(), PAGES / 2 - 1, "4 to 6 are one run");
        Ok(())
    }

    #[test]
    fn only_a_mapping_without_access_rights_is_a_reservation() {
        assert_eq!(reserved("1000-3000 ---p 00000000 00:00 0"), Some(0x1000..0x3000));
        assert_eq!((reserved("1000-3000 rw-p 00000000 00:00 0"), reserved("no mapping")), (None, None));
    }
}
