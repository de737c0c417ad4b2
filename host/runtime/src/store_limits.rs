//! The limits of one instance, over all its memories and tables.
//!
//! They count over the life of the instance: over one call, or over all calls that it serves if
//! the operator granted `reuse`. This module does not know: calls, exchanges.

use wasmtime::ResourceLimiter;
use witgate_http::error::FilterFailure;

use crate::failure::HostTrap;

/// The most linear memory that a filter may be granted, in bytes.
pub(crate) const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Elements of one table. A Python guest's table has 5,676.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Core instances, tables and memories of one component.
const INSTANCES_MAX: usize = 64;
const TABLES_MAX: usize = 64;
const MEMORIES_MAX: usize = 16;

/// The memory that an instance has and may have.
pub(crate) struct StoreLimits {
    memory_bytes_max: usize,
    memory_bytes: usize,
    /// The memory before the first call.
    memory_bytes_first: usize,
}

impl StoreLimits {
    /// Limits for an instance that has no memory yet.
    pub(crate) fn new(memory_bytes_max: usize) -> Self {
        Self { memory_bytes_max, memory_bytes: 0, memory_bytes_first: 0 }
    }

    /// Marks the end of instantiation: from here on, memory grows because of calls.
    pub(crate) fn instantiated(&mut self) {
        self.memory_bytes_first = self.memory_bytes;
    }

    /// The memory that the instance has.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Whether calls left at least half of the memory that was free before the first call. An
    /// instance without that room is dropped before a call meets the limit.
    pub(crate) fn has_room(&self) -> bool {
        let free = self.memory_bytes_max.saturating_sub(self.memory_bytes_first);
        self.memory_bytes.saturating_sub(self.memory_bytes_first) <= free / 2
    }
}

impl ResourceLimiter for StoreLimits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.memory_bytes = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if self.memory_bytes > self.memory_bytes_max {
            // A trap and not a refusal: few guests handle a refused allocation correctly.
            let message = format!(
                "it asked for {} KiB of memory, above its limit of {} KiB: use less, or raise its memory in gateway.yaml",
                self.memory_bytes >> 10,
                self.memory_bytes_max >> 10
            );
            return Err(HostTrap::new(FilterFailure::Memory, message).into());
        }
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            let message =
                format!("it asked for a table of {desired} elements, above the limit of {TABLE_ELEMENTS_MAX}");
            return Err(HostTrap::new(FilterFailure::Limit, message).into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_room_up_to_half_of_the_memory_that_was_free_before_its_first_call() -> wasmtime::Result<()> {
        let mut limits = StoreLimits::new(100);
        limits.memory_growing(0, 40, None)?;
        limits.instantiated();
        assert!(limits.has_room());
        limits.memory_growing(40, 70, None)?;
        assert!(limits.has_room());
        limits.memory_growing(70, 71, None)?;
        assert!(!limits.has_room());
        assert!(limits.memory_growing(71, 101, None).is_err());
        Ok(())
    }
}
