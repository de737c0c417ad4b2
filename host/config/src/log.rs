//! `log:`: the gateway's own log.
//!
//! This module does not know: where log lines go.

use crate::yaml::Section;

/// The gateway's own log.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A filter of the `tracing` crate such as `info` or `witgate=debug`. Default `info`.
    pub level: String,
    /// Default `auto`.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `auto`: text if standard error is a terminal, otherwise JSON.
    Auto,
    /// `text`: for people.
    Text,
    /// `json`: one JSON object per line.
    Json,
}

impl Log {
    pub(crate) fn read(section: &Section) -> Self {
        let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = section.choice("format", &formats, "write auto, text or json");
        Self {
            level: section.string("level").unwrap_or_else(|| "info".into()),
            format: format.unwrap_or(LogFormat::Auto),
        }
    }
}
