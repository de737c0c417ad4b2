//! The stacks of calls: returns the memory of a deep recursion to the system.
//!
//! wasmtime keeps its stacks in a pool and never returns their pages: a recursion of 16 MiB in each
//! of 1000 slots would keep 16 GiB until the gateway ends. wasmtime's own remedy
//! (`async_stack_zeroing`) writes the kept part of the stack after every call. Instead, the gateway
//! advises the kernel itself, and only after calls that took long enough to have used a deep stack.
//! Gain: short calls pay nothing for it. Price: one more call of the epoch callback at the begin of
//! a call, where it learns the address of its stack; and a call of a millisecond pays a system
//! call.
//!
//! wasmtime does not tell the addresses of its pool. It shows as mappings of one stack each, with a
//! guard page before each of them. This module does not know: filters, calls.

use std::fs;
use std::io;
use std::ops::Range;
use std::ptr::with_exposed_provenance_mut;
use std::time::Duration;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// Bytes of a stack that stay mapped. The recursion of an ordinary interpreter fits.
const KEPT_BYTES: usize = 1 << 20;
/// A call that touches more than [`KEPT_BYTES`] takes longer than this: it writes 256 pages, of
/// which the kernel has to map each, because the last deep call returned them.
pub(crate) const DEEP_CALL_MIN: Duration = Duration::from_micros(50);

/// The addresses of the pool's stacks. Empty if they were not found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stacks {
    /// The first guard page.
    start: usize,
    end: usize,
    /// From one guard page to the next.
    stride: usize,
}

impl Stacks {
    /// Finds the pool with stacks of `stack_bytes`. The pool must exist.
    pub(crate) fn find(stack_bytes: usize) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/maps")?, stack_bytes))
    }

    /// The last run of guard pages and stacks in turn.
    fn parse(maps: &str, stack_bytes: usize) -> Self {
        let stride = stack_bytes + page_size();
        let mut found = Self::default();
        let mut guard: Option<Range<usize>> = None;
        for line in maps.lines() {
            let Some((range, access)) = mapping(line) else { continue };
            match guard.take() {
                Some(guard) if guard.end == range.start && access == "rw-p" && range.len() == stack_bytes => {
                    if found.end != guard.start {
                        found = Self { start: guard.start, end: guard.start, stride };
                    }
                    found.end = range.end;
                }
                _ if access == "---p" && range.len() == page_size() => guard = Some(range),
                _ => {}
            }
        }
        found
    }

    /// Returns the pages of the stack with this address to the system, except those at its top. The
    /// caller owns the stack, and no function runs on it.
    #[allow(unsafe_code)]
    pub(crate) fn release_deep(self, address: usize) {
        let Some(deep) = self.deep_part(address) else { return };
        // SAFETY: a stack on which no function runs holds no values, and its next user expects
        // none. The range is within the one stack that the caller owns.
        if let Err(error) =
            unsafe { madvise(with_exposed_provenance_mut(deep.start), deep.len(), Advice::LinuxDontNeed) }
        {
            tracing::debug!(%error, "the memory of a deep stack cannot be returned");
        }
    }

    /// The addresses of the stack below the part that stays mapped.
    fn deep_part(self, address: usize) -> Option<Range<usize>> {
        if !(self.start..self.end).contains(&address) {
            return None;
        }
        let guard = self.start + (address - self.start) / self.stride * self.stride;
        let deep = guard + page_size()..guard + self.stride - KEPT_BYTES;
        (!deep.is_empty()).then_some(deep)
    }
}

/// An address on the stack of the caller.
#[inline(never)]
pub(crate) fn address() -> usize {
    let here = 0_u8;
    std::hint::black_box(&raw const here).expose_provenance()
}

/// The addresses and the access rights of a line of /proc/self/maps.
fn mapping(line: &str) -> Option<(Range<usize>, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    Some((address(start)?..address(end)?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stacks_are_found_among_other_mappings() {
        let (page, stack) = (page_size(), 4 << 20);
        let base = 0x7000_0000_0000;
        let mut maps = format!("{:x}-{:x} rw-p 0 00:00 0 [heap]\n", base - page, base);
        let mut at = base;
        for _ in 0..3 {
            maps += &format!("{:x}-{:x} ---p 0 00:00 0\n", at, at + page);
            maps += &format!("{:x}-{:x} rw-p 0 00:00 0\n", at + page, at + page + stack);
            at += page + stack;
        }
        maps +=
            &format!("{:x}-{:x} ---p 0 00:00 0\n{:x}-{:x} rw-p 0 00:00 0\n", at, at + page, at + page, at + 9 * page);
        let stacks = Stacks::parse(&maps, stack);
        assert_eq!((stacks.start, stacks.end), (base, at));
        let second = base + page + stack;
        for address in [second, second + page, second + page + stack - 1] {
            assert_eq!(stacks.deep_part(address), Some(second + page..second + page + stack - KEPT_BYTES));
        }
        assert_eq!(stacks.deep_part(base - 1), None);
        assert_eq!(stacks.deep_part(at), None);
        assert_eq!(Stacks::default().deep_part(0), None);
    }

    #[test]
    fn the_stacks_of_an_engine_are_found() -> Result<(), String> {
        let engine = crate::engine::Engine::new(3)?;
        let stacks = engine.stacks();
        assert!(stacks.end - stacks.start >= 3 * stacks.stride && stacks.stride > 0, "{stacks:?}");
        assert_eq!((stacks.end - stacks.start) % stacks.stride, 0);
        Ok(())
    }
}
