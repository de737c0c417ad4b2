//! `log:`: the gateway's own log, and the access log.
//!
//! This module does not know: where log lines go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderName;

use crate::values::{HOUR, MILLISECOND, header_name, share, status_range};
use crate::yaml::{Section, Value};

/// The gateway's own log, and the access log.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A filter of the `tracing` crate such as `info` or `witgate=debug`. Default `info`.
    pub level: String,
    /// Default `auto`.
    pub format: LogFormat,
    /// Whether the receiver of `telemetry.otlp` gets the log, too. Default false.
    pub otlp: bool,
    /// One line for each exchange. `None` (`access: off`) disables it.
    pub access: Option<AccessLog>,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `auto`: text if the lines go to a terminal, otherwise JSON.
    Auto,
    /// `text`: for people.
    Text,
    /// `json`: one JSON object per line.
    Json,
}

/// One line for each exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Default standard output.
    pub to: AccessLogTarget,
    /// Default `auto`.
    pub format: LogFormat,
    /// What a JSON line contains. Default [`AccessField::defaults`].
    pub fields: Vec<AccessField>,
    /// Fields of the request that a line contains. Secret ones appear as `redacted`.
    pub headers: Vec<HeaderName>,
    /// The share of the exchanges that are logged; failures always are. Default 1.
    pub sample: f64,
    /// Which exchanges are logged; failures always are. `None` means all.
    pub when: Option<AccessCondition>,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// `stdout`.
    Stdout,
    /// `{file: PATH}`. SIGUSR1 opens the file again.
    File(PathBuf),
    /// `otlp`: the receiver in `telemetry.otlp`.
    Otlp,
}

/// Exchanges that meet one of these conditions are logged.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessCondition {
    /// Ranges of statuses, both ends included.
    pub status: Vec<(u16, u16)>,
    /// Exchanges that took at least this long.
    pub slower: Option<Duration>,
}

/// Declares the fields of the access log with their names.
macro_rules! access_fields {
    ($($field:ident $name:literal $meaning:literal,)*) => {
        /// A field of an access log line.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum AccessField {
            $(#[doc = $meaning] $field,)*
        }

        /// Every field with its name.
        const FIELDS: &[(&str, AccessField)] = &[$(($name, AccessField::$field),)*];
    };
}

access_fields! {
    Time "time" "When the request's head was complete.",
    Id "id" "The id of the exchange, and the request id if a trusted proxy gave another one.",
    Trace "trace" "The trace and its span, if traces are on.",
    Client "client" "The client, after trusted proxies, and the peer if that is another one.",
    Listener "listener" "The listener.",
    Protocol "protocol" "The version of HTTP.",
    Tls "tls" "The version of TLS, the name the client asked for, and its certificate's digest.",
    Method "method" "The method.",
    Host "host" "The host.",
    Path "path" "The path without the query.",
    Query "query" "The query, which often has secrets.",
    Route "route" "The route.",
    Status "status" "The status.",
    Bytes "bytes" "The bytes of both bodies.",
    Duration "duration" "The duration to the end of the response's body.",
    Times "times" "The parts of the duration.",
    Upstream "upstream" "The endpoint and each try.",
    Filters "filters" "Each call of a filter.",
    Notes "notes" "The notes of filters, which may have secrets.",
    Failure "failure" "Why the exchange failed.",
}

impl AccessField {
    /// The fields of a line if the configuration does not choose: all but the query and the notes.
    pub fn defaults() -> Vec<Self> {
        let is_default = |field: &Self| !matches!(field, Self::Query | Self::Notes);
        FIELDS.iter().map(|(_, field)| *field).filter(is_default).collect()
    }
}

impl Log {
    pub(crate) fn read(section: &Section, base: &Path) -> Self {
        let access = if section.is_off("access") {
            None
        } else {
            Some(section.nested("access", |section| AccessLog::read(section, base)))
        };
        Self {
            level: section.scalar("level", check_level).unwrap_or_else(|| "info".into()),
            format: read_format(section),
            otlp: section.bool("otlp").unwrap_or(false),
            access,
        }
    }
}

impl AccessLog {
    fn read(section: &Section, base: &Path) -> Self {
        let mut fields = section.choices("fields", FIELDS, &format!("the fields are {}", field_names()));
        if fields.is_empty() {
            fields = AccessField::defaults();
        }
        Self {
            to: read_target(section, base),
            format: read_format(section),
            fields,
            headers: section.list("headers", header_name),
            sample: section.scalar("sample", share).unwrap_or(1.0),
            when: section.optional("when", |when| AccessCondition {
                status: when.list("status", status_range),
                slower: when.duration("slower", MILLISECOND, HOUR),
            }),
        }
    }
}

/// A level, or levels of parts of the gateway: `info,witgate::admin=debug`. The log's library takes
/// any other word for a part, and would log nothing else.
///
/// # Errors
/// The text says what to write.
pub fn check_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.contains('[')) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let levels = LEVELS.join(", ");
            return Err(format!("the levels are {levels}; for a part of the gateway write info,witgate::admin=debug"));
        }
    }
    Ok(text.to_owned())
}

fn read_format(section: &Section) -> LogFormat {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    section.choice("format", &formats, "write auto, text or json").unwrap_or(LogFormat::Auto)
}

fn read_target(section: &Section, base: &Path) -> AccessLogTarget {
    if section.get("to").is_some_and(|node| matches!(node.value, Value::Map(_))) {
        return section.nested("to", |to| {
            to.require("file", "write the path of the file");
            AccessLogTarget::File(to.file("file", base).unwrap_or_default())
        });
    }
    let targets = [("stdout", AccessLogTarget::Stdout), ("otlp", AccessLogTarget::Otlp)];
    section.choice("to", &targets, "write stdout, otlp or {file: PATH}").unwrap_or(AccessLogTarget::Stdout)
}

fn field_names() -> String {
    FIELDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
