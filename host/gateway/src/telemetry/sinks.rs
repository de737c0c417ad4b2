//! Where the records of exchanges go: metrics, the access log, traces, the last failures and taps.
//!
//! Each thread has a clone of this value, and all clones share what they point to, so a reload
//! replaces the access log and the tracer for all threads. A reload changes the level and the
//! export of the gateway's own log in the same step. A sink that is off costs one load.
//! This module does not know: what a record contains.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::access::AccessLog;
use super::failures::FailedExchanges;
use super::log::{dropped_lines, parse_level, set_level};
use super::log_export::LogExport;
use super::metrics::Metrics;
use super::tap::Taps;
use super::trace::Tracer;
use witgate_config::{AccessLogTarget, Config};

/// The sinks of exchange records. Clones share them.
#[derive(Clone)]
pub struct Telemetry {
    /// Every metric.
    pub metrics: Metrics,
    /// The last exchanges that failed.
    pub failures: Arc<FailedExchanges>,
    /// Those who watch exchanges.
    pub taps: Arc<Taps>,
    /// `None` if it is off.
    pub access: Arc<ArcSwapOption<AccessLog>>,
    /// `None` if traces are off.
    pub tracer: Arc<ArcSwapOption<Tracer>>,
}

/// New sinks that are open, but not in use.
pub struct OpenedSinks {
    level: Option<String>,
    access: Option<Option<Arc<AccessLog>>>,
    tracer: Option<Option<Arc<Tracer>>>,
    log_export: Option<Option<Arc<LogExport>>>,
}

impl Telemetry {
    /// Sinks without access log and traces.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, failures: Arc::default(), taps: Arc::default(), access: Arc::default(), tracer: Arc::default() }
    }

    /// Opens the sinks that differ from those of `old`; without `old`, all of them.
    ///
    /// # Errors
    /// The text says what cannot be opened. Nothing has changed then.
    pub fn open(&self, old: Option<&Config>, new: &Config) -> Result<OpenedSinks, String> {
        let exports_access = new.log.access.as_ref().is_some_and(|access| access.to == AccessLogTarget::Otlp);
        let has_new_access =
            old.is_none_or(|old| old.log.access != new.log.access || exports_access && old.telemetry != new.telemetry);
        let has_new_export =
            old.is_none_or(|old| old.log.otlp != new.log.otlp || new.log.otlp && old.telemetry != new.telemetry);
        let has_new_tracer = old.is_none_or(|old| old.telemetry != new.telemetry);
        let open_access = || {
            let open = |settings| AccessLog::open(settings, &new.telemetry, &self.metrics.access_log_lines_dropped);
            new.log.access.as_ref().map(open).transpose().map(|log| log.map(Arc::new))
        };
        let start_tracer =
            || Tracer::start(&new.telemetry, &self.metrics.trace_export()).map(|tracer| tracer.map(Arc::new));
        let has_new_level = old.is_some_and(|old| old.log.level != new.log.level);
        parse_level(&new.log.level)?;
        Ok(OpenedSinks {
            level: has_new_level.then(|| new.log.level.clone()),
            access: has_new_access.then(open_access).transpose()?,
            tracer: has_new_tracer.then(start_tracer).transpose()?,
            log_export: has_new_export.then(|| LogExport::start(new, &dropped_lines())).transpose()?,
        })
    }

    /// Puts opened sinks into use. The old ones finish what they have.
    pub fn adopt(&self, opened: OpenedSinks) {
        if let Some(level) = opened.level {
            match set_level(&level) {
                Ok(()) => tracing::info!(level, "the log's level has changed"),
                Err(why) => tracing::error!(why, "the new log level was refused; the log keeps the old one"),
            }
        }
        if let Some(access) = opened.access {
            self.access.store(access);
        }
        if let Some(tracer) = opened.tracer {
            self.tracer.store(tracer);
        }
        if let Some(export) = opened.log_export {
            LogExport::adopt(export);
        }
    }

    /// Opens the file of the access log again, after another program renamed it.
    pub fn reopen_files(&self) {
        if let Some(access) = &*self.access.load() {
            access.reopen();
        }
    }

    /// Writes and sends what waits. Each sink has a second or two.
    pub fn finish(&self) {
        if let Some(access) = self.access.swap(None) {
            access.flush();
        }
        if let Some(tracer) = self.tracer.swap(None) {
            tracer.finish();
        }
    }
}
