//! The wasmtime engine: how filters are compiled, and where their instances live.
//!
//! A fresh instance per call is only cheap when nothing is mapped, zeroed or written that the call does not need. So memories and
//! tables come from a pool whose slots keep their pages, a dirty page is found by the kernel's page map and copied back
//! (`pagemap_scan`, Linux ≥ 6.7), and images are copy-on-write. Figures: docs/performance.md. Must not know: filters, HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{Advice, madvise};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::clock::{Calls, Clock};
use super::coalesce;
use super::fault_around;
use super::pool_range::PoolRange;
use crate::chunks::CHUNK_BYTES;

/// The most linear memory that a filter may be granted, in bytes.
pub const MEMORY_BYTES_MAX: usize = 256 << 20;
/// What a slot keeps mapped between calls. An interpreter's working set fits; beyond it pages go back to the system.
const KEEP_RESIDENT: usize = 4 << 20;
const TABLE_KEEP_RESIDENT: usize = 64 << 10;
/// Artifacts of up to so many bytes are mapped whole before they serve. One in Rust has 0.2 MiB, QuickJS 4 MiB; of CPython's 33 MiB calls need a tenth.
const WHOLE_BYTES_MAX: usize = 8 << 20;
/// Per component: an unflattened Python guest has 41 core modules, a QuickJS one three memories.
const CORE_INSTANCES: u32 = 64;
const MEMORIES: u32 = 4;
const TABLES: u32 = 10;
/// Per core module: a flattened guest has its own and that of the host's functions.
const TABLES_PER_MODULE: u32 = 2;
/// Elements of one table: a Python guest's has 5,676.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Instances that all threads together keep between calls: so many the pool has beyond those in calls, for which there is always one.
pub(super) const IDLE_TOTAL_MAX: usize = 256;

/// One engine for the whole gateway; cloning shares it.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    pool_range: PoolRange,
    clock: Arc<Clock>,
    idle_total: Arc<AtomicUsize>,
}

impl Engine {
    /// An engine for at most `instances` component instances in calls at once, or waiting for their end.
    pub fn new(instances: u32) -> Result<Self, String> {
        let inner = wasmtime::Engine::new(&config(instances.saturating_add(IDLE_TOTAL_MAX as u32))).map_err(|error| {
            format!("the WebAssembly engine cannot start: {error:#}; is the address space limited (ulimit -v)?")
        })?;
        let weak = inner.weak();
        // Without /proc nothing is done for their pages: all works, and slower.
        let pool_range = PoolRange::find().unwrap_or_default();
        let bridges = Self::scans_page_map().then(|| coalesce::start(pool_range)).transpose();
        let bridges = bridges.map_err(|error| format!("the thread for dirty pages cannot start: {error}"))?;
        let tick = move || {
            if let Some(bridges) = &bridges {
                let _ = bridges.try_send(());
            }
            weak.upgrade().inspect(wasmtime::Engine::increment_epoch).is_some()
        };
        let clock = Clock::start(tick).map_err(|error| format!("the epoch thread cannot start: {error}"))?;
        Ok(Self { inner, pool_range, clock: Arc::new(clock), idle_total: Arc::default() })
    }

    /// Whether freed slots are cleaned by the kernel's page map (Linux ≥ 6.7) rather than by `madvise`.
    pub fn scans_page_map() -> bool {
        PoolingAllocationConfig::is_pagemap_scan_available()
    }

    /// Whether only the pages of a memory that a guest touches are mapped; else why not.
    pub fn maps_single_pages() -> Result<(), &'static std::io::Error> {
        fault_around::is_supported()
    }

    /// Names everything that a compiled artifact depends on: version, settings, CPU.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.inner)
    }

    /// Component instances in calls and waiting for one.
    pub fn instances(&self) -> usize {
        self.clock.calls().count() + self.idle_total.load(Ordering::Relaxed)
    }

    /// Where those of its instances are.
    pub(super) fn pool_range(&self) -> PoolRange {
        self.pool_range
    }

    pub(super) fn calls(&self) -> &Arc<Calls> {
        self.clock.calls()
    }

    /// Instances kept between calls, over all filters.
    pub(super) fn idle_total(&self) -> &Arc<AtomicUsize> {
        &self.idle_total
    }

    /// What other components than filters run on: those of the ABI benchmark.
    pub fn inner(&self) -> &wasmtime::Engine {
        &self.inner
    }
}

/// See [`Engine::fingerprint`].
pub(super) fn fingerprint(engine: &wasmtime::Engine) -> [u8; 32] {
    struct Feed(blake3::Hasher);
    impl std::hash::Hasher for Feed {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut feed = Feed(blake3::Hasher::new());
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut feed);
    *feed.0.finalize().as_bytes()
}

impl Engine {
    /// Takes up a copy of what [`super::compiler::Compiler::compile`] gave.
    ///
    /// # Safety
    /// The bytes become machine code: they must be what this host wrote.
    #[allow(unsafe_code)]
    pub unsafe fn deserialize(&self, bytes: &[u8]) -> Result<Artifact, String> {
        // SAFETY: the caller vouches for the bytes, see above.
        unsafe { wasmtime::component::Component::deserialize(&self.inner, bytes) }
            .map(|component| Artifact { component })
            .map_err(|error| format!("{error:#}"))
    }

    /// Takes up a file of what [`super::compiler::Compiler::compile`] gave. The file is mapped, not read: its pages are shared with the system's cache
    /// and come in when they are touched.
    ///
    /// # Safety
    /// The file becomes machine code: it must be what this host wrote, and stay unchanged while the artifact lives. `control/cache.rs` checks the first
    /// with a keyed hash and sees to the second by a file that nobody may write, in a folder of this user's own.
    #[allow(unsafe_code)]
    pub unsafe fn deserialize_file(&self, file: &std::path::Path) -> Result<Artifact, String> {
        // SAFETY: the caller vouches for the file, see above.
        unsafe { wasmtime::component::Component::deserialize_file(&self.inner, file) }
            .map(|component| Artifact { component })
            .map_err(|error| format!("{error:#}"))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("instances", &self.instances()).finish()
    }
}

/// A compiled component.
#[derive(Clone)]
pub struct Artifact {
    pub(super) component: wasmtime::component::Component,
}

impl Artifact {
    /// Bytes of machine code, and of all that belongs to it.
    pub(super) fn length(&self) -> usize {
        let file = self.component.image_range();
        file.end.addr() - file.start.addr()
    }

    /// Has the pages of a file that is not large come in now, so that no request waits for them, be it for the disk. Where the system cannot (Linux before 5.14), they come when they are touched.
    #[allow(unsafe_code)]
    pub fn prefault(&self) {
        let (file, length) = (self.component.image_range(), self.length());
        if length > WHOLE_BYTES_MAX {
            return;
        }
        for piece in (0..length).step_by(CHUNK_BYTES) {
            let start = file.start.wrapping_add(piece).cast_mut().cast();
            // SAFETY: pages of a mapping that lives as long as this artifact are read; nothing changes.
            if let Err(error) = unsafe { madvise(start, CHUNK_BYTES.min(length - piece), Advice::LinuxPopulateRead) } {
                tracing::debug!(%error, "a filter's code comes in when it is touched");
                return;
            }
            std::thread::yield_now();
        }
    }
}

fn config(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MEMORIES))
        .total_tables(instances.saturating_mul(TABLES))
        .total_stacks(instances)
        .total_gc_heaps(1)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES_PER_MODULE)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// What machine code depends on: the same for the process that compiles and the one that runs.
pub(super) fn code_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .memory_init_cow(true)
        // An interpreter's image is large and sparse: without this wasmtime would refuse to map it copy-on-write.
        .memory_guaranteed_dense_image_size(MEMORY_BYTES_MAX as u64);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_starts_and_has_one_fingerprint() -> Result<(), String> {
        let (a, b) = (Engine::new(4)?, Engine::new(8)?);
        assert_eq!(a.fingerprint(), b.fingerprint());
        Ok(())
    }
}
