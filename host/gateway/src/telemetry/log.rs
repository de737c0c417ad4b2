//! The log on standard error.
//!
//! This module does not know: what is logged.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::reload::Handle;

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Replaces the filter of the running log.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// rustls warns of what clients write into a handshake, such as an IP address as the server name.
/// Clients that do so are served, and a stranger must not fill the log.
const QUIET: &str = "rustls::msgs=error";

/// Starts the log on standard error. `level` is a `tracing` filter. The error text is for the
/// operator.
pub fn init_log(level: &str, json: bool) -> Result<(), String> {
    let filter = parse_level(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_timer(SystemTime);
    let started = if json {
        let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
        let builder = builder.with_filter_reloading();
        keep_reload_handle(builder.reload_handle());
        builder.try_init()
    } else {
        let builder = builder.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        let builder = builder.with_filter_reloading();
        keep_reload_handle(builder.reload_handle());
        builder.try_init()
    };
    started.map_err(|error| error.to_string())
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
