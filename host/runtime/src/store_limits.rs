//! The limits of one instance, over all its memories and tables, and how the host ends a call from inside.
//!
//! They count over the instance's life: over one call, or over all that an instance serves where the operator granted `reuse`. Must not know: calls, exchanges.

use wasmtime::ResourceLimiter;

use super::engine::TABLE_ELEMENTS_MAX;
use witgate_http::error::FilterFailure;

/// Core instances, tables and memories of one component.
const INSTANCES_MAX: usize = 64;
const TABLES_MAX: usize = 64;
const MEMORIES_MAX: usize = 16;

/// What an instance has and may have.
pub(super) struct StoreLimits {
    memory_bytes_max: usize,
    memory_bytes: usize,
    /// What it had before its first call.
    memory_bytes_first: usize,
}

impl StoreLimits {
    /// So much linear memory at most.
    pub(super) fn new(memory_bytes_max: usize) -> Self {
        Self { memory_bytes_max, memory_bytes: 0, memory_bytes_first: 0 }
    }

    /// The instance is there: from now on memory grows because of calls.
    pub(super) fn begin(&mut self) {
        self.memory_bytes_first = self.memory_bytes;
    }

    /// Whether calls have left at least half of what there was for them: an instance that fills up goes before a call meets the limit.
    pub(super) fn has_room(&self) -> bool {
        let free = self.memory_bytes_max.saturating_sub(self.memory_bytes_first);
        self.memory_bytes.saturating_sub(self.memory_bytes_first) <= free / 2
    }
}

impl ResourceLimiter for StoreLimits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.memory_bytes = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if self.memory_bytes > self.memory_bytes_max {
            // A stop rather than a refusal that the guest may try to live with: what it does without memory is anybody's guess.
            return Err(HostTrap::new(
                FilterFailure::Memory,
                format!(
                    "it asked for {} KiB of memory, above its limit of {} KiB",
                    self.memory_bytes >> 10,
                    self.memory_bytes_max >> 10
                ),
            )
            .into());
        }
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            return Err(HostTrap::new(
                FilterFailure::Limit,
                format!("it asked for a table of {desired} elements, above the limit of {TABLE_ELEMENTS_MAX}"),
            )
            .into());
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

/// Ends a call from inside the host, with the kind that the caller will see.
#[derive(Debug)]
pub(super) struct HostTrap {
    pub(super) kind: FilterFailure,
    pub(super) message: String,
}

impl HostTrap {
    pub(super) fn new(kind: FilterFailure, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<crate::exchange::Refusal> for HostTrap {
    fn from(refusal: crate::exchange::Refusal) -> Self {
        match refusal {
            crate::exchange::Refusal::Invalid(message) => Self::new(FilterFailure::InvalidOutput, message),
            crate::exchange::Refusal::Limit(message) => Self::new(FilterFailure::Limit, message),
        }
    }
}

impl std::fmt::Display for HostTrap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for HostTrap {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_half_of_what_the_first_call_found() -> wasmtime::Result<()> {
        let mut limits = StoreLimits::new(100);
        limits.memory_growing(0, 40, None)?;
        limits.begin();
        assert!(limits.has_room());
        limits.memory_growing(40, 70, None)?;
        assert!(limits.has_room());
        limits.memory_growing(70, 71, None)?;
        assert!(!limits.has_room());
        assert!(limits.memory_growing(71, 101, None).is_err());
        Ok(())
    }
}
