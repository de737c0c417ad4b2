//! Token buckets: how many frames of a kind a client may send.
//!
//! This module does not know: frames.

use std::time::Instant;

/// How many frames of a kind a connection may send.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    /// Frames that a new connection may send in a burst; time refills up to here.
    pub(super) burst: f64,
    /// How many frames a connection may have left, earned ones included.
    pub(super) saved: f64,
    /// Frames that time adds.
    pub(super) per_second: f64,
}

/// The tokens left of a budget.
pub(super) struct TokenBucket {
    budget: Budget,
    tokens: f64,
    refilled_at: Instant,
}

impl TokenBucket {
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, tokens: budget.burst, refilled_at: Instant::now() }
    }

    /// Adds tokens, up to the budget's `saved`.
    pub(super) fn earn(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.budget.saved);
    }

    /// Adds the tokens of the elapsed time, then takes one; false if none is left.
    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        let refill = now.duration_since(self.refilled_at).as_secs_f64() * self.budget.per_second;
        let missing = (self.budget.burst - self.tokens).max(0.0);
        self.tokens += refill.min(missing) - 1.0;
        self.refilled_at = now;
        self.tokens >= 0.0
    }
}
