//! Where the pool has the memories of instances, and which of their pages were written: for what wasmtime leaves to the kernel (`bridges`, `fault_around`).
//!
//! wasmtime does not say at which addresses its pool is. It reserves room for all memories in one piece, before the first is used, which is by far the largest that a process has. What is done with pages
//! there must be right whoever uses them. Must not know: filters.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

use rustix::param::page_size;

/// Less is no pool: a memory alone gets so much room.
const ROOM_MIN: usize = 4 << 30;
/// Runs that the kernel is asked for at once.
const RUNS: usize = 256;

/// The pages of this process in which the pool has its memories; none where the pool was not found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PoolRange {
    pub(super) first: usize,
    pub(super) end: usize,
}

impl PoolRange {
    /// Looks for them, after the pool was made and before it is used.
    pub(super) fn find() -> io::Result<Self> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let reserved = maps.lines().filter_map(reserved).max_by_key(ExactSizeIterator::len).unwrap_or_default();
        let reserved = if reserved.len() < ROOM_MIN { 0..0 } else { reserved };
        Ok(Self { first: reserved.start / page_size(), end: reserved.end / page_size() })
    }

    /// Runs of pages that were written since they were mapped, as wasmtime asks for them.
    pub(super) fn written(self) -> io::Result<Vec<Range<usize>>> {
        let pagemap = File::open("/proc/self/pagemap")?;
        let mut runs = vec![];
        let mut next = self.first;
        while next < self.end {
            next = scan(&pagemap, next..self.end, &mut runs)?;
        }
        Ok(runs)
    }
}

/// The addresses of a mapping that may not be touched.
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

/// Adds runs of private pages in order; says before which page the kernel stopped.
#[allow(unsafe_code)]
fn scan(pagemap: &File, pages: Range<usize>, runs: &mut Vec<Range<usize>>) -> io::Result<usize> {
    const REQUEST: libc::c_ulong = 0xC060_6610;
    const FILE: u64 = 1 << 2;
    const PRESENT: u64 = 1 << 3;
    const ZERO: u64 = 1 << 5;
    let mut regions = [Region::default(); RUNS];
    let mut request = Scan {
        size: size_of::<Scan>() as u64,
        flags: 0,
        start: (pages.start * page_size()) as u64,
        end: (pages.end * page_size()) as u64,
        walk_end: 0,
        runs: regions.as_mut_ptr().expose_provenance() as u64,
        runs_length: RUNS as u64,
        pages_max: 0,
        // Neither of a file nor the page of zeros.
        inverted: FILE | ZERO,
        all_of: PRESENT | FILE | ZERO,
        any_of: 0,
        returned: 0,
    };
    // SAFETY: the kernel reads this structure and writes its `walk_end` and at most so many regions.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), REQUEST, &raw mut request) };
    let found = usize::try_from(found).map_err(|_| io::Error::last_os_error())?;
    let page = |address: u64| address as usize / page_size();
    runs.extend(regions.iter().take(found).map(|region| page(region.start)..page(region.end)));
    match page(request.walk_end) {
        end if end > pages.start => Ok(end),
        _ => Err(io::Error::other("the kernel does not get on with its list of pages")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::error::Error;
    use std::os::unix::fs::FileExt as _;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

    use super::*;

    const RESERVED: usize = 64 << 20;
    pub(in super::super) const PAGES: usize = 600;

    /// A slot of a pool: an image that may be written, then memory that may not be touched.
    pub(in super::super) struct Slot(*mut u8);

    #[allow(unsafe_code)]
    impl Slot {
        /// Each page of its image holds its number.
        pub(in super::super) fn new() -> Result<Self, Box<dyn Error>> {
            let image = File::from(memfd_create("image", MemfdFlags::CLOEXEC)?);
            ftruncate(&image, (PAGES * page_size()) as u64)?;
            for page in 0..PAGES {
                image.write_all_at(&[page as u8], (page * page_size()) as u64)?;
            }
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping, and one over its beginning.
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

        pub(in super::super) fn read(&self, page: usize) -> u8 {
            // SAFETY: within the image; no other thread writes there.
            unsafe { self.byte(page).read_volatile() }
        }

        pub(in super::super) fn write(&self, page: usize, value: u8) {
            // SAFETY: as above.
            unsafe { self.byte(page).write_volatile(value) }
        }

        /// A pool of this slot alone.
        pub(in super::super) fn pool(&self) -> PoolRange {
            let first = self.0.addr() / page_size();
            PoolRange { first, end: first + RESERVED / page_size() }
        }

        /// Numbers of its pages in these runs.
        pub(in super::super) fn own(&self, runs: &[Range<usize>]) -> Vec<Range<usize>> {
            let first = self.pool().first;
            runs.iter().map(|run| run.start - first..run.end - first).collect()
        }
    }

    #[allow(unsafe_code)]
    impl Drop for Slot {
        fn drop(&mut self) {
            // SAFETY: nobody uses it any more.
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
        assert_eq!(slot.own(&slot.pool().written()?), [0..1, 5..7, PAGES - 1..PAGES]);
        // More runs than the kernel is asked for at once.
        (0..PAGES / 2).for_each(|run| slot.write(2 * run, 0xff));
        const { assert!(PAGES / 2 > RUNS) }
        assert_eq!(slot.pool().written()?.len(), PAGES / 2 - 1, "4 to 6 are one");
        Ok(())
    }

    #[test]
    fn the_pool_is_the_largest_reservation() -> Result<(), Box<dyn Error>> {
        let engine = crate::engine::Engine::new(4)?;
        let (pool, found) = (engine.pool_range(), PoolRange::find()?);
        // Each of so many instances may have four memories.
        assert!((pool.end - pool.first) * page_size() > 16 * ROOM_MIN, "{pool:?}");
        assert!(found.end - found.first >= pool.end - pool.first, "{pool:?} {found:?}");
        assert_eq!(reserved("1000-3000 ---p 00000000 00:00 0"), Some(0x1000..0x3000));
        assert_eq!((reserved("1000-3000 rw-p 00000000 00:00 0"), reserved("no mapping")), (None, None));
        Ok(())
    }
}
