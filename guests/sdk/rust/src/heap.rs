//! The heap of a filter: a small arena that is there from the start, then the standard allocator.
//!
//! The standard one knows no memory but what it grows, and a memory that grew must shrink before the slot serves the next instance: two changes of page protection for each
//! call, which every core of the machine has to notice. Most calls fit into the arena and grow nothing. In it, memory comes back when it was the last that was given, or
//! when all is free: a call is short, and what does not fit goes to the standard allocator, which takes back everything. Must not know: what is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};

const ARENA_BYTES: usize = 64 << 10;
/// Of the arena itself; what needs more goes to the standard allocator.
const ALIGN_MAX: usize = 16;

#[repr(align(16))]
struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

/// The arena in front of the standard allocator.
struct Heap {
    arena: Arena,
    /// Where the free part begins.
    used: Cell<usize>,
    /// Allocations that were not freed.
    live: Cell<usize>,
}

// SAFETY: a filter is a component without threads.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap { arena: Arena(UnsafeCell::new([0; ARENA_BYTES])), used: Cell::new(0), live: Cell::new(0) };

impl Heap {
    fn base(&self) -> *mut u8 {
        self.arena.0.get().cast()
    }

    /// Where in the arena a pointer is.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        let offset = (pointer as usize).wrapping_sub(self.base() as usize);
        (offset < ARENA_BYTES).then_some(offset)
    }
}

// SAFETY: what the arena gives is inside it, aligned, and overlaps nothing that lives: `used` only goes back over the last allocation, or when none lives.
// An allocation of no bytes never comes here.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.used.get().next_multiple_of(layout.align());
        if layout.align() > ALIGN_MAX || layout.size() > ARENA_BYTES - start.min(ARENA_BYTES) {
            // SAFETY: the caller's layout.
            return unsafe { System.alloc(layout) };
        }
        self.used.set(start + layout.size());
        self.live.set(self.live.get() + 1);
        // SAFETY: `start + size` is at most the arena's size.
        unsafe { self.base().add(start) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: it is not the arena's, so it is the standard allocator's.
            return unsafe { System.dealloc(pointer, layout) };
        };
        self.live.set(self.live.get() - 1);
        if self.live.get() == 0 {
            self.used.set(0);
        } else if offset + layout.size() == self.used.get() {
            self.used.set(offset);
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: it is not the arena's, so it is the standard allocator's.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        let is_last = offset + layout.size() == self.used.get();
        if size <= layout.size() || (is_last && size <= ARENA_BYTES - offset) {
            if is_last {
                self.used.set(offset + size);
            }
            return pointer;
        }
        // SAFETY: the caller's alignment, and a size that it may ask for; the new memory does not overlap the old one, which lives.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(pointer, new, layout.size());
                self.dealloc(pointer, layout);
            }
            new
        }
    }
}
