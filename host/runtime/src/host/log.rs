//! `log`: writes lines of a filter to the gateway's log, within bounds and without control
//! characters.
//!
//! This module does not know: where the log goes.

use wasmtime::Result;

use crate::bindings::witgate::gateway::log::{self, Level};
use crate::filter::CallState;

/// Lines of one call; further lines are counted and dropped.
const LINES_MAX: u32 = 64;
/// Bytes of one line; the rest is cut off.
const LINE_BYTES_MAX: usize = 4 << 10;

impl log::Host for CallState {
    fn write(&mut self, level: Level, message: String) -> Result<()> {
        self.log_lines += 1;
        if self.log_lines > LINES_MAX {
            self.log_lines_dropped += 1;
            return Ok(());
        }
        let mut end = message.len().min(LINE_BYTES_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message = escaped(&message[..end]);
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

/// Control characters as `\u{…}`, so that a guest cannot forge lines of the log or control a
/// terminal.
fn escaped(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| if c.is_control() && c != '\t' { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}
