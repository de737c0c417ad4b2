//! A bound on the log lines that one filter can cause, so that a failing filter does not fill the disk.
//!
//! This module does not know: what is logged.

use std::time::Duration;

/// Lets one line in a while through for each of a few places: a failing filter must not fill the disk.
pub struct LogLimit {
    window: std::sync::Mutex<(std::time::Instant, u32)>,
}

impl LogLimit {
    /// Lines a second.
    const BURST: u32 = 20;

    /// A fresh limit.
    pub fn new() -> Self {
        Self { window: std::sync::Mutex::new((std::time::Instant::now(), 0)) }
    }

    /// Whether a line may be written now.
    pub fn allow(&self) -> bool {
        let mut window = self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if window.0.elapsed() > Duration::from_secs(1) {
            *window = (std::time::Instant::now(), 0);
        }
        window.1 = window.1.saturating_add(1);
        window.1 <= Self::BURST
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}
