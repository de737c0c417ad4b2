//! `random`: random bytes of the operating system.
//!
//! This module does not know: what they are used for.

use wasmtime::Result;
use witgate_http::error::FilterFailure;

use crate::bindings::witgate::gateway::random;
use crate::failure::HostTrap;
use crate::filter::CallState;

/// Bytes that one call of `bytes` returns.
const BYTES_MAX: u32 = 64 << 10;

impl random::Host for CallState {
    fn bytes(&mut self, len: u32) -> Result<Vec<u8>> {
        if len > BYTES_MAX {
            let message = format!(
                "the filter asked for {len} random bytes; one call returns at most {BYTES_MAX}: call it several times"
            );
            return Err(HostTrap::new(FilterFailure::Limit, message).into());
        }
        if let Some(bytes) = self.replayed().and_then(|replay| replay.random(len as usize)) {
            return Ok(bytes);
        }
        let mut bytes = vec![0; len as usize];
        getrandom::fill(&mut bytes).map_err(wasmtime::Error::new)?;
        if let Some(record) = self.recorded() {
            record.record_random(&bytes);
        }
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32> {
        const LENGTH: usize = size_of::<u32>();
        let replayed = self.replayed().and_then(|replay| replay.random(LENGTH));
        if let Some(bytes) = replayed.and_then(|bytes| <[u8; LENGTH]>::try_from(bytes).ok()) {
            return Ok(u32::from_le_bytes(bytes));
        }
        let number = getrandom::u32().map_err(wasmtime::Error::new)?;
        if let Some(record) = self.recorded() {
            record.record_random(&number.to_le_bytes());
        }
        Ok(number)
    }
}
