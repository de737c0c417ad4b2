//! Polls a condition until a deadline.
//!
//! This module does not know: what a test waits for.

use std::time::{Duration, Instant};

/// Polls until `condition` holds. Panics with `what` after 10 seconds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_up_to(Duration::from_secs(10), what, condition);
}

/// Polls until `condition` holds. Panics with `what` after `limit`.
#[track_caller]
pub fn wait_up_to(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < until, "this did not happen within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
