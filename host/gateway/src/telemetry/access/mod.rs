//! The access log: one line for each exchange, once its response has ended.
//!
//! A line is formatted into a buffer of the thread and copied to the log's writer, which never
//! blocks. This module decides which exchanges are logged; `line` writes JSON, `text` writes for
//! people, `file` opens a file, and `otlp` beside this module sends lines to a receiver.
//! This module does not know: how an exchange is served.

mod file;
mod line;
mod shown;
mod text;

use std::cell::RefCell;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::log_writer::LogWriter;
use super::otlp::{LogKind, OtlpLogOutput};
use super::record::{End, ExchangeRecord};
use file::{ReopenableFile, Reopener};
pub use line::SECRET_HEADERS;
pub use shown::ShownExchange;
use witgate_config::{AccessLogTarget, LogFormat, Telemetry};

/// How long the end of the process waits for lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines are gathered for this long, so that a busy gateway makes one system call for thousands of
/// them. Price: a line appears that much later.
const GATHER_TIME: Duration = Duration::from_millis(20);

/// Lines for an OTLP receiver are gathered for this long, so that one message has many of them.
const OTLP_GATHER_TIME: Duration = Duration::from_millis(100);

/// An open access log.
pub struct AccessLog {
    settings: witgate_config::AccessLog,
    is_json: bool,
    writer: LogWriter,
    reopener: Option<Reopener>,
}

impl AccessLog {
    /// Opens the target and starts its writer. `telemetry` has the receiver of the target `otlp`,
    /// and `dropped` counts the lines that the target was too slow for.
    ///
    /// # Errors
    /// The text says what cannot be opened.
    pub fn open(
        settings: &witgate_config::AccessLog,
        telemetry: &Telemetry,
        dropped: &Counter,
    ) -> Result<Self, String> {
        let fail = |error: io::Error| match &settings.to {
            AccessLogTarget::Stdout | AccessLogTarget::Otlp => {
                format!("log.access: the thread of the access log cannot be started: {error}")
            }
            AccessLogTarget::File(path) => format!("log.access.to.file: {}: {error}", path.display()),
        };
        let dropped = dropped.clone();
        let (writer, reopener) = match &settings.to {
            AccessLogTarget::Stdout => {
                (LogWriter::start(dropped, GATHER_TIME, io::stdout(), report_dropped).map_err(fail)?, None)
            }
            AccessLogTarget::File(path) => {
                let (file, reopener) = ReopenableFile::open(path).map_err(fail)?;
                (LogWriter::start(dropped, GATHER_TIME, file, report_dropped).map_err(fail)?, Some(reopener))
            }
            AccessLogTarget::Otlp => {
                let otlp = telemetry.otlp.as_ref().ok_or("log.access.to: otlp needs telemetry.otlp")?;
                let output = OtlpLogOutput::new(LogKind::Access, telemetry, otlp, dropped.clone());
                let output = output.map_err(|why| format!("log.access.to: otlp: {why}"))?;
                let started = LogWriter::start(dropped, OTLP_GATHER_TIME, output, report_dropped);
                (started.map_err(fail)?, None)
            }
        };
        let is_json = match (settings.format, &settings.to) {
            (LogFormat::Json, _) | (LogFormat::Auto, AccessLogTarget::File(_)) | (_, AccessLogTarget::Otlp) => true,
            (LogFormat::Auto, AccessLogTarget::Stdout) => !io::stdout().is_terminal(),
            (LogFormat::Text, _) => false,
        };
        Ok(Self { settings: settings.clone(), is_json, writer, reopener })
    }

    /// Opens the file again before the next line.
    pub fn reopen(&self) {
        if let Some(reopener) = &self.reopener {
            reopener.reopen();
        }
    }

    /// Waits until all lines are written, at most for a second.
    pub fn flush(&self) {
        self.writer.flush(FLUSH_TIMEOUT);
    }

    /// The configuration.
    pub fn settings(&self) -> &witgate_config::AccessLog {
        &self.settings
    }

    /// Writes the line of an exchange that ended, if the settings select it.
    pub(super) fn log(&self, record: &ExchangeRecord, end: &End) {
        if !self.selects(record, end) {
            return;
        }
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(vec![]) };
        }
        LINE.with_borrow_mut(|out| {
            out.clear();
            if self.is_json {
                line::write(out, &self.settings.fields, record, end);
            } else {
                text::write(out, record, end);
            }
            out.push(b'\n');
            self.writer.append(out, 1);
        });
    }

    /// Failures are always logged. Other exchanges must meet the condition, and be in the sample.
    fn selects(&self, record: &ExchangeRecord, end: &End) -> bool {
        if record.is_failed() {
            return true;
        }
        let meets = self.settings.when.as_ref().is_none_or(|when| {
            let status = record.status.map_or(0, |status| status.as_u16());
            let is_slow = when.slower.is_some_and(|slower| end.duration >= slower);
            is_slow || when.status.iter().any(|(from, to)| (*from..=*to).contains(&status))
        });
        meets && record.is_in_share(self.settings.sample)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.writer.close();
    }
}

fn report_dropped(lines: u64) {
    tracing::warn!(lines, "lines of the access log were dropped: its reader is too slow");
}

/// The whole line of an exchange as JSON, whatever the settings are.
pub(super) fn describe(record: &ExchangeRecord, end: &End) -> String {
    let mut out = vec![];
    line::write(&mut out, &witgate_config::AccessField::defaults(), record, end);
    String::from_utf8(out).unwrap_or_default()
}

/// The same with fields of the request, and with the explanation of the failure.
pub(super) fn describe_with_headers<'h>(
    record: &ExchangeRecord,
    end: &End,
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    what: Option<&str>,
) -> Vec<u8> {
    let mut out = vec![];
    line::write_with(&mut out, &witgate_config::AccessField::defaults(), (record, end), |line| {
        line::write_headers(line, headers);
        if let Some(what) = what {
            line.text("what", what, usize::MAX);
        }
    });
    out
}
