//! The log on standard error, and a bound on lines that somebody else could make grow.
//!
//! Must not know: what is logged.

use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// Starts the log on standard error. `level` is a `tracing` filter; a bad one is an error text for the operator.
pub fn init_log(level: &str, json: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("log.level: {level}: {error}; use info, or witgate=debug"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_timer(SystemTime);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    started.map_err(|error| error.to_string())
}

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
