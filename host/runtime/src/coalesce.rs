//! Joins runs of dirty pages in the pool, so that restoring a memory after a call stays cheap.
//!
//! wasmtime asks the kernel for runs of written pages and copies them back, but it handles only so
//! many runs: it unmaps all memory above the last one, and each later call faults it in again. An
//! interpreter writes in many places, and each path through a filter writes in others, so a memory
//! can reach that number.
//!
//! Gain: if few clean pages lie between two runs, this thread makes them private, and both become
//! one run; no memory is unmapped. Price: the copy of those pages after each call, and one scan of
//! the page map from time to time while there are calls. The content of a page never changes, so
//! the thread need not know which filter writes it. The less it finds, the less often it scans.
//! This module does not know: filters, what is in a memory.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

use crate::pool_range::PoolRange;
use crate::store_limits::MEMORY_BYTES_MAX;

/// The number of runs that wasmtime handles (`MAX_REGIONS` in its `pagemap.rs`).
const RUNS_MAX: usize = 32;
/// The number of runs from which they are joined: another path through a filter adds a few more.
const RUN_THRESHOLD: usize = RUNS_MAX - 2;
/// The number of runs that remain: fewer would only mean more pages to copy.
const TARGET_RUNS: usize = RUNS_MAX - 8;
/// The largest gap that is filled, in pages. Its copy takes about as long as three page faults.
const GAP_MAX: usize = 32;
/// Dirty pages of a memory above which its runs are not joined: then the page faults above the last
/// run cost less than the copies.
const PAGES_MAX: usize = 512;
/// The smallest gap between runs of two memories, in pages: a slot is larger than any memory.
const SLOT_GAP: usize = MEMORY_BYTES_MAX >> 12;
/// The time between two scans: at first, and at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Starts the thread. A message makes it scan unless it sleeps. It ends with the sender.
pub(super) fn start(pool: PoolRange) -> io::Result<SyncSender<()>> {
    // The channel holds nothing: a message is lost while the thread sleeps.
    let (sender, receiver) = sync_channel(0);
    std::thread::Builder::new().name("coalesce".into()).spawn(move || scan(pool, &receiver))?;
    Ok(sender)
}

fn scan(pool: PoolRange, ticks: &Receiver<()>) {
    let mut pause = PAUSE;
    while ticks.recv().is_ok() {
        pause = match coalesce(pool) {
            Ok(0) => PAUSE_MAX.min(pause * 2),
            Ok(pages) => {
                tracing::debug!(pages, "runs of dirty pages were joined");
                PAUSE
            }
            Err(error) => {
                tracing::debug!(%error, "the page map cannot be scanned");
                PAUSE_MAX
            }
        };
        std::thread::sleep(pause);
    }
}

/// Joins the runs of each memory in the pool. Returns the number of pages that became private.
fn coalesce(pool: PoolRange) -> io::Result<usize> {
    let written = pool.written()?;
    let gaps: Vec<_> = written.chunk_by(|run, next| next.start - run.end < SLOT_GAP).flat_map(gaps).collect();
    let pages = gaps.iter().map(ExactSizeIterator::len).sum();
    gaps.into_iter().for_each(make_private);
    Ok(pages)
}

/// The gaps to fill between the runs of one memory, shortest first.
fn gaps(runs: &[Range<usize>]) -> Vec<Range<usize>> {
    if runs.len() < RUN_THRESHOLD {
        return vec![];
    }
    let between = runs.windows(2).map(|pair| pair[0].end..pair[1].start);
    let mut gaps: Vec<_> = between.filter(|gap| gap.len() <= GAP_MAX).collect();
    gaps.sort_by_key(ExactSizeIterator::len);
    gaps.truncate(runs.len() - TARGET_RUNS);
    let pages: usize = runs.iter().chain(&gaps).map(ExactSizeIterator::len).sum();
    if pages > PAGES_MAX { vec![] } else { gaps }
}

/// Makes pages private, as a write of their own content would. Fails harmlessly if the memory is
/// gone.
#[allow(unsafe_code)]
fn make_private(pages: Range<usize>) {
    let start = std::ptr::without_provenance_mut(pages.start * page_size());
    // SAFETY: this advice changes neither content nor access rights, so it is correct for any user
    // of the memory.
    let _ = unsafe { madvise(start, pages.len() * page_size(), Advice::LinuxPopulateWrite) };
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::pool_range::tests::{PAGES, Slot};

    #[test]
    fn runs_of_dirty_pages_are_joined_and_no_page_changes() -> Result<(), Box<dyn Error>> {
        let slot = Slot::new()?;
        // Ten runs with one clean page after each, then twenty with four, then the last, far away.
        let dirty = (0..10).map(|run| run * 2).chain((0..20).map(|run| 20 + run * 5)).chain([180]).collect::<Vec<_>>();
        for page in 0..PAGES {
            slot.read(page);
        }
        assert!(slot.relative(&slot.pool().written()?).is_empty(), "pages that were only read are clean");
        for page in &dirty {
            slot.write(*page, 0xff);
        }
        assert_eq!(slot.relative(&slot.pool().written()?).len(), 31);
        assert!(coalesce(slot.pool())? >= 7);
        let runs = slot.relative(&slot.pool().written()?);
        assert_eq!((runs.len(), runs[0].clone(), runs[23].clone()), (TARGET_RUNS, 0..15, 180..181), "{runs:?}");
        for page in 0..PAGES {
            assert_eq!(slot.read(page), if dirty.contains(&page) { 0xff } else { page as u8 });
        }
        coalesce(slot.pool())?;
        assert_eq!(slot.relative(&slot.pool().written()?), runs, "too few runs to join");
        Ok(())
    }

    #[test]
    fn only_short_gaps_are_filled_the_shortest_first() {
        let every = |step: usize, count: usize| (0..count).map(|run| run * step..run * step + 1).collect::<Vec<_>>();
        assert!(gaps(&every(2, RUN_THRESHOLD - 1)).is_empty(), "too few runs to join");
        assert!(gaps(&every(GAP_MAX + 2, 100)).is_empty(), "the gaps are too large");
        assert!(gaps(&every(GAP_MAX + 1, RUN_THRESHOLD + PAGES_MAX / GAP_MAX)).is_empty(), "too many pages to copy");
        let (far, near) = (every(5, RUN_THRESHOLD), every(2, RUN_THRESHOLD));
        let runs: Vec<_> = far.iter().cloned().chain(near.iter().map(|run| run.start + 1000..run.end + 1000)).collect();
        let gaps = gaps(&runs);
        assert_eq!(gaps.iter().filter(|gap| gap.len() == 1).count(), RUN_THRESHOLD - 1, "all short gaps");
        assert_eq!(gaps.len(), runs.len() - TARGET_RUNS);
    }
}
