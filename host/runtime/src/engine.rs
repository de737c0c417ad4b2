//! The wasmtime engine: the settings of compiled code, and the pool in which instances live.
//!
//! A fresh instance per call is cheap only if nothing is mapped, zeroed or written that the call
//! does not need. Gain: memories and tables come from a pool whose slots keep their pages; the
//! kernel's page map finds the dirty ones (`pagemap_scan`, Linux 6.7), and images are
//! copy-on-write. Price: the pool reserves address space for all its slots, and each slot keeps up
//! to [`KEEP_RESIDENT_BYTES`] of memory. docs/performance.md has figures.
//! This module does not know: filters, HTTP.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use rustix::mm::{Advice, madvise};
use wasmtime::component::Component;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::chunks::CHUNK_BYTES;
use crate::clock::{ActiveCalls, Clock};
use crate::coalesce;
use crate::fault_around;
use crate::load_error::{LoadError, LoadErrorReason};
use crate::pool_range::PoolRange;
use crate::proposals;
use crate::stacks::Stacks;
use crate::store_limits::{MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
use witgate_http::limiter::Limiter;
use witgate_http::text::bounded;

/// Bytes that a memory's slot keeps mapped between calls. The working set of an interpreter fits;
/// pages beyond it return to the system.
const KEEP_RESIDENT_BYTES: usize = 4 << 20;
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// The stack of Wasm code in a call, in bytes. The recursion limits of QuickJS and CPython take
/// effect before it ends, so an author's handler can catch the error: JSON of 30,000 levels needs
/// 14 MiB in CPython. A call costs only the pages that it touches, which stay with the pool's slot.
const STACK_BYTES: usize = 16 << 20;
/// The rest of a call's stack, for functions of the host that Wasm code calls.
const HOST_STACK_BYTES: usize = 1 << 20;
/// The largest machine code that [`Artifact::prefault`] maps. A filter in Rust has 0.2 MiB, QuickJS
/// has 4 MiB; of CPython's 33 MiB, calls need a tenth.
const PREFAULT_BYTES_MAX: usize = 8 << 20;
/// Per component: a Python guest that is not optimized has 41 core modules, a QuickJS guest three
/// memories.
const CORE_INSTANCES: u32 = 64;
const MEMORIES: u32 = 4;
const TABLES: u32 = 10;
/// Per core module: an optimized guest has its own table and that of the host's functions.
const TABLES_PER_MODULE: u32 = 2;

/// Idle instances over all threads and filters. The pool has slots for them beyond those for
/// instances in calls.
pub(crate) const IDLE_TOTAL_MAX: usize = 256;

/// The most frames of a stack in a profile.
const PROFILE_FRAMES_MAX: usize = 256;

/// The engine of the gateway. Clones share it.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    pool_range: PoolRange,
    stacks: Stacks,
    clock: Arc<Clock>,
    idle_total: Limiter,
}

impl Engine {
    /// An engine for at most `instances` component instances that are in calls or wait to be
    /// dropped.
    ///
    /// # Errors
    ///
    /// The address space cannot be reserved, or a thread cannot be started.
    pub fn new(instances: u32) -> Result<Self, String> {
        Self::with(&config(instances.saturating_add(IDLE_TOTAL_MAX as u32)))
    }

    /// The same, for samples of calls: an error has the whole stack of the guest.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub fn for_profiles(instances: u32) -> Result<Self, String> {
        let mut config = config(instances.saturating_add(IDLE_TOTAL_MAX as u32));
        config.wasm_backtrace_max_frames(NonZeroUsize::new(PROFILE_FRAMES_MAX));
        Self::with(&config)
    }

    fn with(config: &Config) -> Result<Self, String> {
        let inner = wasmtime::Engine::new(config).map_err(|error| {
            format!("the WebAssembly engine cannot start: {error:#}; is the address space limited (ulimit -v)?")
        })?;
        let weak = inner.weak();
        // Without /proc the range is empty, and `fault_around` and `coalesce` have no effect.
        let pool_range = PoolRange::find().unwrap_or_default();
        // Likewise, no stack is released.
        let stacks = Stacks::find(STACK_BYTES + HOST_STACK_BYTES).unwrap_or_default();
        let coalescer = Self::scans_page_map().then(|| coalesce::start(pool_range)).transpose();
        let coalescer = coalescer.map_err(|error| format!("the thread for dirty pages cannot start: {error}"))?;
        let tick = move || {
            if let Some(coalescer) = &coalescer {
                let _ = coalescer.try_send(());
            }
            weak.upgrade().inspect(wasmtime::Engine::increment_epoch).is_some()
        };
        let clock = Clock::start(tick).map_err(|error| format!("the epoch thread cannot start: {error}"))?;
        Ok(Self { inner, pool_range, stacks, clock: Arc::new(clock), idle_total: Limiter::default() })
    }

    /// Whether the kernel's page map finds dirty pages (Linux 6.7), and not `madvise`.
    pub fn scans_page_map() -> bool {
        PoolingAllocationConfig::is_pagemap_scan_available()
    }

    /// Whether the kernel maps only the pages of a memory that a guest touches.
    ///
    /// # Errors
    ///
    /// Why it maps their neighbours too.
    pub fn maps_single_pages() -> Result<(), &'static std::io::Error> {
        fault_around::is_supported()
    }

    /// Identifies everything that machine code depends on: wasmtime's version, settings, CPU.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.inner)
    }

    /// The number of component instances in calls and idle ones.
    pub fn instances(&self) -> usize {
        self.clock.calls().count() + self.idle_total.in_use()
    }

    /// The engine for components that are not filters: those of the ABI benchmark.
    pub fn inner(&self) -> &wasmtime::Engine {
        &self.inner
    }

    /// Maps a copy of what [`crate::compiler::Compiler::compile`] returned.
    ///
    /// # Errors
    ///
    /// The code is for another engine, or its component needs more than the pool's slots have.
    ///
    /// # Safety
    ///
    /// The bytes become machine code: this program must have written them.
    #[allow(unsafe_code)]
    pub unsafe fn deserialize(&self, bytes: &[u8]) -> Result<Artifact, LoadError> {
        // SAFETY: the caller guarantees the origin of the bytes, see above.
        unsafe { Component::deserialize(&self.inner, bytes) }.map(Artifact::new).map_err(refused_code)
    }

    /// Maps a file of what [`crate::compiler::Compiler::compile`] returned. The file's pages are
    /// shared with the system's cache and are read when they are touched.
    ///
    /// # Errors
    ///
    /// The code is for another engine, or its component needs more than the pool's slots have.
    ///
    /// # Safety
    ///
    /// The file becomes machine code: this program must have written it, and it must not change
    /// while the artifact lives. The artifact cache checks the first with a keyed hash, and
    /// ensures the second with a file that no other user may write.
    #[allow(unsafe_code)]
    pub unsafe fn deserialize_file(&self, file: &Path) -> Result<Artifact, LoadError> {
        // SAFETY: the caller guarantees the origin of the file, see above.
        unsafe { Component::deserialize_file(&self.inner, file) }.map(Artifact::new).map_err(refused_code)
    }

    pub(crate) fn pool_range(&self) -> PoolRange {
        self.pool_range
    }

    pub(crate) fn stacks(&self) -> Stacks {
        self.stacks
    }

    pub(crate) fn calls(&self) -> &Arc<ActiveCalls> {
        self.clock.calls()
    }

    /// The number of idle instances of all filters.
    pub(crate) fn idle_total(&self) -> &Limiter {
        &self.idle_total
    }
}

/// wasmtime has no type for a component that does not fit the pool, so only its text identifies it.
fn refused_code(error: wasmtime::Error) -> LoadError {
    let text = bounded(format_args!("{error:#}"));
    let (reason, what) = if text.contains("pooling allocator") {
        (LoadErrorReason::Limits, "the component needs more than an instance may have")
    } else {
        (LoadErrorReason::Compile, "the compiled code cannot be loaded")
    };
    LoadError::new(reason, format!("{what}: {text}")).with_source(error.into_boxed_dyn_error())
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("instances", &self.instances()).finish()
    }
}

/// A compiled component.
#[derive(Clone)]
pub struct Artifact {
    pub(crate) component: Component,
}

impl Artifact {
    fn new(component: Component) -> Self {
        Self { component }
    }

    /// The size of the machine code and its metadata in bytes.
    pub(crate) fn length(&self) -> usize {
        let image = self.component.image_range();
        image.end.addr() - image.start.addr()
    }

    /// Maps all pages of machine code that is not large, so that no request waits for them or for
    /// the disk. Before Linux 5.14 the pages are mapped when they are touched.
    #[allow(unsafe_code)]
    pub fn prefault(&self) {
        let (image, length) = (self.component.image_range(), self.length());
        if length > PREFAULT_BYTES_MAX {
            return;
        }
        for offset in (0..length).step_by(CHUNK_BYTES) {
            let start = image.start.wrapping_add(offset).cast_mut().cast();
            let bytes = CHUNK_BYTES.min(length - offset);
            // SAFETY: reads pages of a mapping that lives as long as this artifact.
            if let Err(error) = unsafe { madvise(start, bytes, Advice::LinuxPopulateRead) } {
                tracing::debug!(%error, "a filter's code is not prefaulted: its pages are mapped when they are touched");
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// See [`Engine::fingerprint`].
pub(crate) fn fingerprint(engine: &wasmtime::Engine) -> [u8; 32] {
    struct Blake3(blake3::Hasher);
    impl std::hash::Hasher for Blake3 {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = Blake3(blake3::Hasher::new());
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
    *hasher.0.finalize().as_bytes()
}

fn config(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MEMORIES))
        .total_tables(instances.saturating_mul(TABLES))
        .total_stacks(instances)
        // No proposal that needs a heap is allowed (`proposals.rs`).
        .total_gc_heaps(0)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES_PER_MODULE)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    let mut config = code_config();
    config.max_wasm_stack(STACK_BYTES).async_stack_size(STACK_BYTES + HOST_STACK_BYTES);
    // After a trap, `source_location` reads the memory. Handles of it are all that this keeps.
    config.coredump_on_trap(true);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// The settings that machine code depends on: the same in the process that compiles and in the one
/// that runs the code.
pub(crate) fn code_config() -> Config {
    let mut config = Config::new();
    proposals::apply(&mut config);
    config
        .epoch_interruption(true)
        .memory_init_cow(true)
        // The image of an interpreter is large and sparse. Below this size wasmtime maps a sparse
        // image copy-on-write too.
        .memory_guaranteed_dense_image_size(MEMORY_BYTES_MAX as u64);
    config
}

#[cfg(test)]
mod tests {
    use rustix::param::page_size;

    use super::*;
    use crate::pool_range::SLOT_BYTES_MIN;

    #[test]
    fn engines_of_different_sizes_have_the_same_fingerprint() -> Result<(), String> {
        let (a, b) = (Engine::new(4)?, Engine::new(8)?);
        assert_eq!(a.fingerprint(), b.fingerprint());
        Ok(())
    }

    #[test]
    fn the_pool_is_the_largest_reservation() -> Result<(), Box<dyn std::error::Error>> {
        let engine = Engine::new(4)?;
        let (pool, found) = (engine.pool_range(), PoolRange::find()?);
        // Each of the four instances may have four memories.
        assert!((pool.end - pool.first) * page_size() > 16 * SLOT_BYTES_MIN, "{pool:?}");
        assert!(found.end - found.first >= pool.end - pool.first, "{pool:?} {found:?}");
        Ok(())
    }

    #[test]
    #[allow(unsafe_code)]
    fn bytes_that_are_not_machine_code_are_a_compile_error() -> Result<(), String> {
        // SAFETY: no machine code is in these bytes, so none can run.
        let refused = unsafe { Engine::new(1)?.deserialize(b"not machine code") };
        assert_eq!(refused.err().map(|error| error.reason), Some(LoadErrorReason::Compile));
        Ok(())
    }
}
