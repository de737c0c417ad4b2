//! A bound on the log lines about one filter, so that a filter that fails in every call does not
//! fill the disk.
//!
//! This module does not know: what is logged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Permits [`LogLimit::LINES_PER_SECOND`] lines about a filter's failures, and
/// [`LogLimit::BYTES_PER_SECOND`] bytes of lines that it writes itself, in each second.
pub struct LogLimit {
    window: Mutex<Window>,
}

/// What was logged in the current second.
struct Window {
    began: Instant,
    lines: u32,
    bytes: usize,
}

impl LogLimit {
    const LINES_PER_SECOND: u32 = 20;
    const BYTES_PER_SECOND: usize = 256 << 10;

    /// A limit with nothing logged so far.
    pub fn new() -> Self {
        Self { window: Mutex::new(Window::new()) }
    }

    /// Whether one more line about a failure may be written.
    pub fn allow_line(&self) -> bool {
        self.with_window(|window| {
            window.lines = window.lines.saturating_add(1);
            window.lines <= Self::LINES_PER_SECOND
        })
    }

    /// Whether a line about a failure would be written now.
    pub(crate) fn has_line(&self) -> bool {
        self.with_window(|window| window.lines < Self::LINES_PER_SECOND)
    }

    /// Whether the filter may write a line of so many bytes. A line that does not fit uses nothing.
    pub fn allow_bytes(&self, bytes: usize) -> bool {
        self.with_window(|window| {
            let fits = window.bytes + bytes <= Self::BYTES_PER_SECOND;
            window.bytes += if fits { bytes } else { 0 };
            fits
        })
    }

    fn with_window(&self, decide: impl FnOnce(&mut Window) -> bool) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.elapsed() > Duration::from_secs(1) {
            *window = Window::new();
        }
        decide(&mut window)
    }
}

impl Window {
    fn new() -> Self {
        Self { began: Instant::now(), lines: 0, bytes: 0 }
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_bytes_are_bounded_apart() {
        let limit = LogLimit::new();
        assert!(limit.has_line());
        let lines = (0..100).filter(|_| limit.allow_line()).count();
        assert_eq!(lines, LogLimit::LINES_PER_SECOND as usize);
        assert!(!limit.has_line());
        let written = (0..1000).filter(|_| limit.allow_bytes(4 << 10)).count();
        assert_eq!(written, LogLimit::BYTES_PER_SECOND / (4 << 10));
        assert!(!limit.allow_bytes(1), "the second's bytes are used up");
    }
}
