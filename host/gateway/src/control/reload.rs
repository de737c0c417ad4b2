//! Loads changed configurations, filters and certificates, and puts them into service.
//!
//! Certificates are checked first, because they reload without the configuration. A configuration
//! is applied completely or not at all. A changed filter is loaded on its own: if it is refused,
//! its previous version stays in service and the other filters are not affected.
//!
//! This module does not know: connections, requests, how changes are noticed.

use std::sync::Arc;
use std::time::Instant;

use super::config_source::ConfigSource;
use crate::pipeline::snapshot::{Filters, Shared, Snapshot};
use crate::releases::loader::Loader;
use crate::telemetry::{FilterLabels, LoadFailureLabels, Metrics, OpenedSinks, ReloadLabels};
use crate::tls::reload::{CertificateErrors, Certificates, UpstreamSet, UpstreamTlsMap, upstream_tls};
use witgate_config::Config;
use witgate_runtime::filter::Filter;
use witgate_runtime::load_error::LoadError;

/// Why a configuration is not applied. Displays the whole message for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The text cannot be read or is invalid.
    #[error("{0}")]
    Config(String),
    /// These keys cannot change while the gateway runs.
    #[error("{} cannot change while the gateway runs: restart it, or put the old value back", .0.join(", "))]
    FixedKeys(Vec<&'static str>),
    /// Filters are refused.
    #[error(transparent)]
    Filters(#[from] FilterErrors),
    /// Certificates of upstreams are refused.
    #[error(transparent)]
    Certificates(#[from] CertificateErrors),
    /// The access log or the export of traces cannot be started, or the log's level is invalid.
    #[error("{0}")]
    Telemetry(String),
    /// The parts do not fit together.
    #[error("{0}")]
    Snapshot(String),
}

/// The refused filters of a configuration. Displays one line for each.
#[derive(Debug)]
pub struct FilterErrors(Vec<RefusedFilter>);

#[derive(Debug)]
struct RefusedFilter {
    name: String,
    location: String,
    error: LoadError,
}

impl std::fmt::Display for FilterErrors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, RefusedFilter { name, location, error }) in self.0.iter().enumerate() {
            let line_break = if index > 0 { "\n" } else { "" };
            write!(formatter, "{line_break}filters.{name}: {location}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FilterErrors {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.first().map(|refused| &refused.error as _)
    }
}

/// Loads every filter of a configuration.
///
/// # Errors
/// All refused filters at once.
pub fn load_filters(loader: &mut Loader, config: &Config, metrics: &Metrics) -> Result<Filters, FilterErrors> {
    let mut filters = Filters::new();
    let mut refused = vec![];
    for (name, filter) in &config.filters {
        match loader.load(name, filter) {
            Ok(loaded) => {
                filters.insert(name.clone(), loaded);
            }
            Err(error) => {
                count_failure(metrics, name, &error);
                let location = filter.source.display().to_string();
                refused.push(RefusedFilter { name: name.clone(), location, error });
            }
        }
    }
    if refused.is_empty() { Ok(filters) } else { Err(FilterErrors(refused)) }
}

/// Sets the metric of the loaded filters.
pub fn publish_filters(metrics: &Metrics, filters: &Filters) {
    metrics.filters.clear();
    for (name, filter) in filters {
        metrics.filters.get_or_create(&filter_labels(name, filter)).set(1);
    }
}

/// The labels of a loaded filter.
pub(crate) fn filter_labels(name: &str, filter: &Filter) -> FilterLabels {
    FilterLabels { filter: name.into(), version: filter.version.clone(), digest: filter.short_digest.clone() }
}

fn count_failure(metrics: &Metrics, name: &str, error: &LoadError) {
    let labels = LoadFailureLabels { filter: name.into(), reason: error.reason.label() };
    metrics.load_failures.get_or_create(&labels).inc();
}

/// Keeps the running state up to date with its files.
pub struct Reloader {
    shared: Arc<Shared>,
    loader: Loader,
    certificates: Certificates,
    source: ConfigSource,
    /// The last text that was read, whether applied or not.
    text: String,
}

/// Why the files are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The file watcher reported a change.
    Watch,
    /// The interval elapsed.
    Interval,
    /// SIGHUP. It reloads unchanged files too, and reports known problems again.
    Signal,
}

impl Reloader {
    /// A reloader for a state that was built from `text`.
    pub fn new(
        shared: Arc<Shared>,
        mut loader: Loader,
        certificates: Certificates,
        source: ConfigSource,
        text: String,
    ) -> Self {
        loader.yield_to_traffic();
        Self { shared, loader, certificates, source, text }
    }

    /// Checks the files and puts changed ones into service. Blocks while filters compile.
    pub fn reload_changed(&mut self, trigger: Trigger) {
        // Certificates come first, because they take no time and compiling does.
        self.certificates.reload_changed(trigger == Trigger::Signal);
        match self.source.read() {
            Ok(text) if text != self.text || trigger == Trigger::Signal => {
                self.text = text;
                self.reload_config();
            }
            // An unreadable file may be in the middle of a replacement, so only a signal reports
            // it.
            Err(why) if trigger == Trigger::Signal => self.report_refused_config(&ReloadError::Config(why)),
            _ => self.reload_filters(),
        }
    }

    fn reload_config(&mut self) {
        let began = Instant::now();
        match self.build_snapshot() {
            Ok((snapshot, upstreams, sinks)) => {
                self.shared.telemetry.adopt(sinks);
                self.certificates.adopt(upstreams);
                self.loader.retain(&snapshot.config);
                self.swap(snapshot);
                self.shared.reloads.apply_config();
                tracing::info!(ms = began.elapsed().as_millis() as u64, "the configuration is in service");
            }
            Err(error) => {
                self.loader.set_limits(&self.shared.snapshot.load().config);
                self.report_refused_config(&error);
            }
        }
    }

    fn build_snapshot(&mut self) -> Result<(Snapshot, UpstreamSet, OpenedSinks), ReloadError> {
        let config = self.source.parse(&self.text).map_err(ReloadError::Config)?;
        check_fixed_keys(&self.shared.snapshot.load().config, &config)?;
        self.loader.set_limits(&config);
        let filters = load_filters(&mut self.loader, &config, &self.shared.metrics)?;
        let upstreams = self.certificates.prepare(&config)?;
        let old = self.shared.snapshot.load().config.clone();
        let sinks = self.shared.telemetry.open(Some(&old), &config).map_err(ReloadError::Telemetry)?;
        let snapshot =
            self.new_snapshot(Arc::new(config), filters, upstream_tls(&upstreams)).map_err(ReloadError::Snapshot)?;
        Ok((snapshot, upstreams, sinks))
    }

    fn reload_filters(&mut self) {
        let current = self.shared.snapshot.load_full();
        let mut filters = current.filters.clone();
        let mut replaced = vec![];
        for (name, filter) in &current.config.filters {
            if !self.loader.has_changed(name, filter) {
                continue;
            }
            match self.loader.load(name, filter) {
                Ok(loaded) => {
                    self.shared.reloads.accept_filter(name);
                    replaced.push(format!("{name} {} ({})", loaded.version, loaded.short_digest));
                    filters.insert(name.clone(), loaded);
                }
                Err(error) => self.report_refused_filter(name, filter, &error),
            }
        }
        if replaced.is_empty() {
            return;
        }
        match self.new_snapshot(current.config.clone(), filters, current.upstream_tls.clone()) {
            Ok(snapshot) => {
                self.swap(snapshot);
                tracing::info!(filters = replaced.join(", "), "in service");
            }
            Err(why) => {
                self.count("refused");
                tracing::error!(why, "the filters were refused; the previous ones stay in service");
            }
        }
    }

    fn new_snapshot(
        &self,
        config: Arc<Config>,
        filters: Filters,
        upstream_tls: UpstreamTlsMap,
    ) -> Result<Snapshot, String> {
        Snapshot::new(config, filters, upstream_tls, &self.shared.registry, &self.shared.metrics)
    }

    fn swap(&self, snapshot: Snapshot) {
        // The metrics come first: an observer of the new state must find it counted.
        publish_filters(&self.shared.metrics, &snapshot.filters);
        self.count("applied");
        self.shared.reloads.serve(snapshot.served_filters());
        self.shared.swap(snapshot);
    }

    fn report_refused_config(&self, error: &ReloadError) {
        self.count("refused");
        self.shared.reloads.refuse_config(&error.to_string());
        if let ReloadError::Filters(FilterErrors(refused)) = error {
            refused.iter().for_each(|filter| self.shared.reloads.refuse_filter(&filter.name, &filter.error.message));
        }
        tracing::error!(why = %error, "the configuration was refused; the previous one stays in service");
    }

    /// Reports a refused filter once, because the loader does not try the same revision again.
    fn report_refused_filter(&self, name: &str, filter: &witgate_config::Filter, error: &LoadError) {
        count_failure(&self.shared.metrics, name, error);
        self.shared.reloads.refuse_filter(name, &error.message);
        self.count("refused");
        tracing::error!(
            filter = name,
            file = %filter.source.display(),
            reason = error.reason.label(),
            why = error.message,
            "the new file was refused; the previous version stays in service"
        );
    }

    fn count(&self, result: &'static str) {
        self.shared.metrics.reloads.get_or_create(&ReloadLabels { result }).inc();
    }
}

/// Refuses changes of keys that need a restart, so that an operator does not expect an effect.
fn check_fixed_keys(old: &Config, new: &Config) -> Result<(), ReloadError> {
    let keys = [
        ("listeners", old.listeners != new.listeners),
        ("workers", old.workers != new.workers),
        ("admin", old.admin != new.admin),
        ("state", old.state_dir != new.state_dir),
        ("log.format", old.log.format != new.log.format),
        ("dns", old.dns_servers != new.dns_servers),
    ];
    let changed: Vec<_> = keys.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect();
    if changed.is_empty() { Ok(()) } else { Err(ReloadError::FixedKeys(changed)) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn keys_that_cannot_change_are_named() -> anyhow::Result<()> {
        let text = "upstreams: {a: {builtin: echo}}\nroutes: [{upstream: a}]\n";
        let old = Config::parse(text, "f", Path::new("/")).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let mut new = old.clone();
        assert!(check_fixed_keys(&old, &new).is_ok());
        new.workers += 1;
        let why = check_fixed_keys(&old, &new).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.starts_with("workers cannot change"), "{why}");
        Ok(())
    }
}
