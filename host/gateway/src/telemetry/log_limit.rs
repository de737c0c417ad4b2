//! Bounds how often a warning is logged whose cause an outsider can repeat.
//!
//! Each key, such as a route with its endpoint or a listener, has its own bound, so that one broken
//! endpoint does not hide the failures of another. This module does not know: what is logged.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The bounds of all warnings.
pub static WARNINGS: LazyLock<LogLimits> = LazyLock::new(LogLimits::default);

/// How many lines of one key are logged in one window.
const LINES_PER_WINDOW: u32 = 5;
const WINDOW: Duration = Duration::from_secs(1);
/// Above this number of keys the counts of those without recent lines are dropped.
const KEYS_MAX: usize = 4096;

/// Allows five lines of a key each second.
#[derive(Debug, Default)]
pub struct LogLimits(Mutex<HashMap<String, Lines>>);

#[derive(Debug)]
struct Lines {
    window_began: Instant,
    logged: u32,
    suppressed: u64,
}

impl LogLimits {
    /// Whether a line may be logged: the number of lines of this key that were suppressed before
    /// it, or `None`.
    pub fn allow(&self, key: &str) -> Option<u64> {
        self.allow_at(key, Instant::now())
    }

    fn allow_at(&self, key: &str, now: Instant) -> Option<u64> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains_key(key) {
            if keys.len() >= KEYS_MAX {
                keys.retain(|_, lines| now.duration_since(lines.window_began) < WINDOW);
            }
            keys.insert(key.to_owned(), Lines { window_began: now, logged: 0, suppressed: 0 });
        }
        let lines = keys.get_mut(key)?;
        if now.duration_since(lines.window_began) >= WINDOW {
            (lines.window_began, lines.logged) = (now, 0);
        }
        if lines.logged >= LINES_PER_WINDOW {
            lines.suppressed += 1;
            return None;
        }
        lines.logged += 1;
        Some(std::mem::take(&mut lines.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressed_lines_are_counted_in_the_next_line_of_the_key() {
        let (limits, now) = (LogLimits::default(), Instant::now());
        let allowed: Vec<_> = (0..8).map(|_| limits.allow_at("a", now)).collect();
        assert_eq!(allowed, [Some(0), Some(0), Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!(limits.allow_at("b", now), Some(0), "another key has lines of its own");
        assert_eq!(limits.allow_at("a", now + WINDOW), Some(3));
        assert_eq!(limits.allow_at("a", now + WINDOW), Some(0));
    }

    #[test]
    fn old_keys_are_dropped() {
        let (limits, now) = (LogLimits::default(), Instant::now());
        for key in 0..2 * KEYS_MAX {
            limits.allow_at(&key.to_string(), now + WINDOW * u32::try_from(key).unwrap_or(0));
        }
        assert!(limits.0.lock().is_ok_and(|keys| keys.len() <= KEYS_MAX));
    }
}
