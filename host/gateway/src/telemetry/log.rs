//! The log on standard error.
//!
//! A thread of its own writes the log (`log_writer.rs`), so a full pipe stalls no other thread.
//! `log_export` sends the same events to a receiver of OTLP.
//! There is one log for the process, as there is one `tracing` subscriber. This module does not
//! know: what is logged.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::log_export::{ExportLayer, LogExport};
use super::log_writer::{GATHER_TIME, LogWriter};

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Replaces the filter of the running log.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// rustls warns of what clients write into a handshake, such as an IP address as the server name.
/// Clients that do so are served, and an untrusted client must not fill the log.
const QUIET: &str = "rustls::msgs=error";

/// How long the end of the process waits for a reader of the log.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static WRITER: OnceLock<LogWriter> = OnceLock::new();
static DROPPED_LINES: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Starts the log on standard error. `level` is a `tracing` filter. The error text is for the
/// operator.
pub fn init_log(level: &str, json: bool) -> Result<(), String> {
    let filter = parse_level(level)?;
    let started = LogWriter::start(dropped_lines(), GATHER_TIME, std::io::stderr(), report_dropped);
    let writer = started.map_err(|error| format!("the thread of the log cannot be started: {error}"))?;
    let writer = WRITER.get_or_init(|| writer);
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| writer.clone()).with_timer(SystemTime);
    let started = if json {
        let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
        let builder = builder.with_filter_reloading();
        keep_reload_handle(builder.reload_handle());
        builder.finish().with(ExportLayer).try_init()
    } else {
        let builder = builder.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        let builder = builder.with_filter_reloading();
        keep_reload_handle(builder.reload_handle());
        builder.finish().with(ExportLayer).try_init()
    };
    started.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Waits until the log is written, for at most a second. The process calls this before it ends.
pub fn flush_log() {
    LogExport::finish();
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_TIMEOUT);
    }
}

/// Counts the lines of the log that were dropped.
pub(super) fn dropped_lines() -> Counter {
    DROPPED_LINES.clone()
}

fn report_dropped(lines: u64) {
    tracing::warn!(lines, "lines of the log were dropped: its reader is too slow");
}

/// The standard hook writes to standard error, which may stall.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(location, message = %format_args!("a defect in the gateway: {message}"), %backtrace);
}

/// Checks a level. The error text is for the operator.
pub fn parse_level(level: &str) -> Result<EnvFilter, String> {
    let complete = if level.contains("rustls") { level.to_owned() } else { format!("{level},{QUIET}") };
    EnvFilter::try_new(&complete).map_err(|error| format!("log.level: {level}: {error}; use info, or witgate=debug"))
}

/// Changes the level of the running log. The error text is for the operator.
pub fn set_level(level: &str) -> Result<(), String> {
    let filter = parse_level(level)?;
    SET_FILTER.get().map_or(Ok(()), |set| set(filter))
}

fn keep_reload_handle<S: 'static>(handle: Handle<EnvFilter, S>) {
    let set = move |filter| handle.reload(filter).map_err(|error| format!("log.level: {error}"));
    // A process starts one log.
    let _ = SET_FILTER.set(Box::new(set));
}
