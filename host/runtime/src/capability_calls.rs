//! Counts the calls that one call of a filter makes to a capability of the gateway.
//!
//! This module does not know: what a capability does, who reads the numbers.

/// Calls of a filter to one capability of the gateway.
#[derive(Debug, Clone, Copy, Default)]
pub struct CapabilityCalls {
    /// Calls that succeeded.
    pub ok: u32,
    /// Calls that returned an error to the filter.
    pub failed: u32,
}

impl CapabilityCalls {
    /// Whether there was a call.
    pub const fn any(&self) -> bool {
        self.ok > 0 || self.failed > 0
    }

    /// Counts a call.
    pub(crate) fn count<T, E>(&mut self, result: Result<T, E>) -> Result<T, E> {
        match result {
            Ok(_) => self.ok += 1,
            Err(_) => self.failed += 1,
        }
        result
    }
}
