//! Joins runs of dirty pages in the pool, so that cleaning a memory after a call stays cheap whatever the calls write.
//!
//! wasmtime asks the kernel which pages of a memory were written and copies those back, but takes only so many runs of them; all memory above the last one is unmapped, and each later call
//! faults it in again. An interpreter writes here and there, and each path through a filter elsewhere: what one rare answer wrote stays to be copied, so after a while there are too many. Where
//! few clean pages lie between two runs they are made private too. Then both are one run, which costs the copying of those pages and nothing else: their content is what it was.
//! Nobody needs to know for this which pages a filter writes; a thread looks from time to time while there are calls, and less often the longer it found nothing to do.
//! Must not know: filters, what is in a memory.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

use super::engine::MEMORY_BYTES_MAX;
use super::pool_range::PoolRange;

/// So many runs wasmtime takes at once (`MAX_REGIONS` in its `pagemap.rs`).
const RUNS_MAX: usize = 32;
/// From here on runs are joined: another path through the filter brings a few more.
const RUN_THRESHOLD: usize = RUNS_MAX - 2;
/// So many runs are to stay: fewer would only mean more to copy.
const TARGET_RUNS: usize = RUNS_MAX - 8;
/// Clean pages between two runs that are copied rather than kept apart: to copy them takes about as long as three page faults.
const GAP_MAX: usize = 32;
/// Pages that are copied back after each call, above which runs are left alone: to fault in what calls touch above the last run costs less then.
const PAGES_MAX: usize = 512;
/// Runs of two memories have at least so many pages between them: in the pool each memory has room for more than the largest.
const SLOT_GAP: usize = MEMORY_BYTES_MAX >> 12;
/// Between two looks: at first, and at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Starts the thread: it looks when it is sent something and does not rest, and is over when the sender is dropped.
pub(super) fn start(pool: PoolRange) -> io::Result<SyncSender<()>> {
    // Nothing waits in it: who sends while the thread rests sends in vain.
    let (sender, receiver) = sync_channel(0);
    std::thread::Builder::new().name("bridges".into()).spawn(move || look(pool, &receiver))?;
    Ok(sender)
}

fn look(pool: PoolRange, calls: &Receiver<()>) {
    let mut pause = PAUSE;
    while calls.recv().is_ok() {
        pause = match coalesce(pool) {
            Ok(0) => PAUSE_MAX.min(pause * 2),
            Ok(pages) => {
                tracing::debug!(pages, "runs of dirty pages were joined");
                PAUSE
            }
            Err(error) => {
                tracing::debug!(%error, "dirty pages cannot be looked at");
                PAUSE_MAX
            }
        };
        std::thread::sleep(pause);
    }
}

/// Looks at each memory in the pool: how many pages were made private.
fn coalesce(pool: PoolRange) -> io::Result<usize> {
    let written = pool.written()?;
    let gaps: Vec<_> = written.chunk_by(|run, next| next.start - run.end < SLOT_GAP).flat_map(gaps).collect();
    let pages = gaps.iter().map(ExactSizeIterator::len).sum();
    gaps.into_iter().for_each(make_private);
    Ok(pages)
}

/// What lies between runs that are to become one: the shortest first.
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

/// As if each of these pages were written with what it holds. Where there is no such memory any more nothing happens.
#[allow(unsafe_code)]
fn make_private(pages: Range<usize>) {
    let start = std::ptr::without_provenance_mut(pages.start * page_size());
    // SAFETY: this advice changes no content and no access, whoever uses the memory meanwhile.
    let _ = unsafe { madvise(start, pages.len() * page_size(), Advice::LinuxPopulateWrite) };
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::super::pool_range::tests::{PAGES, Slot};
    use super::*;

    #[test]
    fn runs_of_dirty_pages_are_joined_and_no_page_changes() -> Result<(), Box<dyn Error>> {
        let slot = Slot::new()?;
        // Ten runs with one clean page after each, then twenty with four, then the last, far away.
        let dirty = (0..10).map(|run| run * 2).chain((0..20).map(|run| 20 + run * 5)).chain([180]).collect::<Vec<_>>();
        for page in 0..PAGES {
            slot.read(page);
        }
        assert!(slot.own(&slot.pool().written()?).is_empty(), "what was only read");
        for page in &dirty {
            slot.write(*page, 0xff);
        }
        assert_eq!(slot.own(&slot.pool().written()?).len(), 31);
        assert!(coalesce(slot.pool())? >= 7);
        let runs = slot.own(&slot.pool().written()?);
        assert_eq!((runs.len(), runs[0].clone(), runs[23].clone()), (TARGET_RUNS, 0..15, 180..181), "{runs:?}");
        for page in 0..PAGES {
            assert_eq!(slot.read(page), if dirty.contains(&page) { 0xff } else { page as u8 });
        }
        coalesce(slot.pool())?;
        assert_eq!(slot.own(&slot.pool().written()?), runs, "few enough are left alone");
        Ok(())
    }

    #[test]
    fn only_short_gaps_are_filled_the_shortest_first() {
        let every = |step: usize, count: usize| (0..count).map(|run| run * step..run * step + 1).collect::<Vec<_>>();
        assert!(gaps(&every(2, RUN_THRESHOLD - 1)).is_empty(), "few enough");
        assert!(gaps(&every(GAP_MAX + 2, 100)).is_empty(), "too far apart");
        assert!(gaps(&every(GAP_MAX + 1, RUN_THRESHOLD + PAGES_MAX / GAP_MAX)).is_empty(), "too much to copy");
        let (far, near) = (every(5, RUN_THRESHOLD), every(2, RUN_THRESHOLD));
        let runs: Vec<_> = far.iter().cloned().chain(near.iter().map(|run| run.start + 1000..run.end + 1000)).collect();
        let gaps = gaps(&runs);
        assert_eq!(gaps.iter().filter(|gap| gap.len() == 1).count(), RUN_THRESHOLD - 1, "all of the short ones");
        assert_eq!(gaps.len(), runs.len() - TARGET_RUNS);
    }
}
