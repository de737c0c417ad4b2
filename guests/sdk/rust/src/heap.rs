//! The allocator of a filter: a static arena of 64 KiB, in front of the standard allocator.
//!
//! The standard allocator has no memory until it grows the linear memory, and the host has to
//! shrink a memory that grew before its pool slot can serve the next instance. That costs two
//! changes of page protection per call, each of which interrupts every core. Most calls fit into
//! the arena and grow nothing.
//!
//! The arena is a bump allocator. It reuses memory only when the last allocation is freed, or when
//! all allocations are freed. That is enough, because a call is short; an allocation that does not
//! fit goes to the standard allocator.
//!
//! This module does not know what is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};

const ARENA_BYTES: usize = 64 << 10;
/// The alignment of the arena. An allocation that needs more goes to the standard allocator.
const ALIGN_MAX: usize = 16;

#[repr(align(16))]
struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

/// The global allocator.
struct Heap {
    arena: Arena,
    /// The offset of the free part.
    used: Cell<usize>,
    /// The number of allocations that are not freed.
    live: Cell<usize>,
}

// SAFETY: a filter is a component, and has no threads.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap { arena: Arena(UnsafeCell::new([0; ARENA_BYTES])), used: Cell::new(0), live: Cell::new(0) };

impl Heap {
    fn base(&self) -> *mut u8 {
        self.arena.0.get().cast()
    }

    /// The offset of a pointer in the arena. `None` if it points elsewhere.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        let offset = (pointer as usize).wrapping_sub(self.base() as usize);
        (offset < ARENA_BYTES).then_some(offset)
    }
}

// SAFETY: an allocation of the arena is inside it, aligned, and overlaps no live allocation: `used`
// decreases only when the last allocation is freed, or when none is live. Allocations of zero bytes
// never reach a global allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.used.get().next_multiple_of(layout.align());
        if layout.align() > ALIGN_MAX || layout.size() > ARENA_BYTES - start.min(ARENA_BYTES) {
            // SAFETY: the caller guarantees a valid layout.
            return unsafe { System.alloc(layout) };
        }
        self.used.set(start + layout.size());
        self.live.set(self.live.get() + 1);
        // SAFETY: `start + size` is at most the size of the arena.
        unsafe { self.base().add(start) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: the pointer is not in the arena, so it comes from the standard allocator.
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
            // SAFETY: the pointer is not in the arena, so it comes from the standard allocator.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        let is_last = offset + layout.size() == self.used.get();
        if size <= layout.size() || (is_last && size <= ARENA_BYTES - offset) {
            if is_last {
                self.used.set(offset + size);
            }
            return pointer;
        }
        // SAFETY: the caller guarantees the alignment and the size. The new allocation does not
        // overlap the old one, which is live.
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
