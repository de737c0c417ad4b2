//! `log`: writes lines of a filter to the gateway's log, within bounds and without control
//! characters.
//!
//! This module does not know: where the log goes.

use wasmtime::Result;

use crate::bindings::witgate::gateway::log::{self, Level};
use crate::exchange::LogLine;
use crate::filter::CallState;
use witgate_http::text::bounded;

/// Lines of one call; further lines are counted and dropped.
const LINES_MAX: u32 = 64;

impl log::Host for CallState {
    fn write(&mut self, level: Level, message: String) -> Result<()> {
        self.log_lines += 1;
        if self.log_lines > LINES_MAX {
            self.log_lines_dropped += 1;
            return Ok(());
        }
        let message = bounded(message);
        if let Some(lines) = &mut self.exchange.captured_log {
            lines.push(LogLine { level: label(level), text: message });
            return Ok(());
        }
        if !self.filter.log_limit.allow_bytes(message.len()) {
            self.log_lines_dropped += 1;
            return Ok(());
        }
        let (filter, version, exchange) = (&*self.filter.settings.name, &*self.filter.version, self.exchange.id_text());
        match level {
            Level::Trace => tracing::trace!(target: "filter", filter, version, exchange, "{message}"),
            Level::Debug => tracing::debug!(target: "filter", filter, version, exchange, "{message}"),
            Level::Info => tracing::info!(target: "filter", filter, version, exchange, "{message}"),
            Level::Warn => tracing::warn!(target: "filter", filter, version, exchange, "{message}"),
            Level::Error => tracing::error!(target: "filter", filter, version, exchange, "{message}"),
        }
        Ok(())
    }
}

/// The name of a level in a [`LogLine`].
const fn label(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
