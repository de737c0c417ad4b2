//! Identifiers of exchanges.
//!
//! An identifier tells exchanges apart and protects nothing, so a fast generator that the system's
//! generator seeds is enough. This module does not know: what an exchange is.

use std::cell::Cell;

/// An identifier that no other exchange has.
#[inline]
pub fn new_exchange_id() -> u128 {
    thread_local! {
        static STATE: Cell<u128> = Cell::new(seed());
    }
    STATE.with(|state| {
        // A multiplicative generator modulo 2^128 (L'Ecuyer's multiplier). Its low bits are weak,
        // so the high half is folded onto them.
        let next = state.get().wrapping_mul(0xda94_2042_e4dd_58b5_u128);
        state.set(next);
        next ^ (next >> 64)
    })
}

fn seed() -> u128 {
    let mut bytes = [0; 16];
    // Without the system's generator two threads may make the same identifiers. That is harmless.
    let _ = getrandom::fill(&mut bytes);
    u128::from_le_bytes(bytes) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<u128> = (0..10_000).map(|_| new_exchange_id()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
