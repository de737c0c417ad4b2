//! A bound on the log lines about one filter, so that a filter that fails in every call does not
//! fill the disk.
//!
//! This module does not know: what is logged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Permits at most [`LogLimit::LINES_PER_SECOND`] lines in each second.
pub struct LogLimit {
    /// When the current second began, and the lines in it.
    window: Mutex<(Instant, u32)>,
}

impl LogLimit {
    const LINES_PER_SECOND: u32 = 20;

    /// A limit without lines so far.
    pub fn new() -> Self {
        Self { window: Mutex::new((Instant::now(), 0)) }
    }

    /// Whether one more line may be written.
    pub fn allow(&self) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0.elapsed() > Duration::from_secs(1) {
            *window = (Instant::now(), 0);
        }
        window.1 = window.1.saturating_add(1);
        window.1 <= Self::LINES_PER_SECOND
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}
