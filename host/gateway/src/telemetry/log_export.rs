//! The gateway's own log over OTLP, beside standard error (`log.otlp`).
//!
//! A layer of the `tracing` subscriber writes each event as a JSON line to the bounded buffer of a
//! thread, which sends it; what the receiver is too slow for is dropped and counted. Two things
//! keep the export from feeding itself: events of libraries, which the export calls, are left out,
//! and so is what a thread that exports logs. Both stand on standard error.
//! This module does not know: what is logged.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::json::{JsonObject, timestamp};
use super::log_writer::LogWriter;
use super::otlp::{LogKind, OtlpLogOutput, is_exporter_thread};
use witgate_config::{Config, Telemetry};
use witgate_http::text::bounded;

/// Lines are gathered for this long, so that one message has many of them.
const GATHER_TIME: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the receiver.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The most bytes of a field.
const TEXT_MAX: usize = 4 << 10;
/// Events of the gateway, of filters and of components that answer as upstreams.
const TARGETS: [&str; 5] = ["witgate", "witgate_runtime", "witgate_http", "filter", "component"];

/// The export that is in use. `None` if it is off.
static EXPORT: ArcSwapOption<LogExport> = ArcSwapOption::const_empty();

/// A thread that sends the log.
pub(super) struct LogExport(LogWriter);

impl LogExport {
    /// Starts the thread if `log.otlp` asks for it. `dropped` counts lines that were not sent.
    ///
    /// # Errors
    /// The text says what cannot be started.
    pub(super) fn start(config: &Config, dropped: &Counter) -> Result<Option<Arc<Self>>, String> {
        let Telemetry { otlp: Some(otlp), .. } = &config.telemetry else { return Ok(None) };
        if !config.log.otlp {
            return Ok(None);
        }
        let output = OtlpLogOutput::new(LogKind::Own, &config.telemetry, otlp, dropped.clone());
        let output = output.map_err(|why| format!("log.otlp: {why}"))?;
        let started = LogWriter::start(dropped.clone(), GATHER_TIME, output, report_dropped);
        started.map(|writer| Some(Arc::new(Self(writer)))).map_err(|error| format!("log.otlp: {error}"))
    }

    /// Puts an export into use. The old one sends what it has.
    pub(super) fn adopt(export: Option<Arc<Self>>) {
        EXPORT.store(export);
    }

    /// Sends what waits. For at most a second.
    pub(super) fn finish() {
        if let Some(export) = EXPORT.swap(None) {
            export.0.flush(FLUSH_TIMEOUT);
        }
    }
}

impl Drop for LogExport {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn report_dropped(lines: u64) {
    tracing::warn!(lines, "lines of the log were not exported: the receiver of telemetry.otlp is too slow");
}

/// Passes events on to the export that is in use.
pub(super) struct ExportLayer;

impl<S: Subscriber> Layer<S> for ExportLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let export = EXPORT.load();
        let Some(LogExport(writer)) = export.as_deref() else { return };
        let metadata = event.metadata();
        let target = metadata.target().split("::").next().unwrap_or_default();
        if !TARGETS.contains(&target) || is_exporter_thread() {
            return;
        }
        let mut out = vec![];
        let mut line = JsonObject::new(&mut out);
        line.plain("time", |out| timestamp(out, SystemTime::now()));
        line.text("level", metadata.level().as_str(), TEXT_MAX);
        event.record(&mut Fields(&mut line));
        line.end();
        out.push(b'\n');
        writer.append(&out, 1);
    }
}

/// Writes the fields of an event; its message is one of them.
struct Fields<'l, 'o>(&'l mut JsonObject<'o>);

impl Visit for Fields<'_, '_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.bool(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(field.name(), value, TEXT_MAX);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.text(field.name(), bounded(format_args!("{value:?}")), TEXT_MAX);
    }
}
