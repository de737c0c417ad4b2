//! Loads changed configurations, filters and certificates, and puts them into service.
//!
//! Certificates, the configuration and each filter have jobs of their own, so that none waits for
//! another. A configuration is applied completely or not at all. A changed filter is loaded on its
//! own: if it is refused, its previous version stays in service and the other filters are not
//! affected.
//!
//! This module does not know: connections, requests, how changes are noticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use super::config_source::{self, ConfigSource};
use super::known_series;
use super::reload_jobs::{ReloadJobs, Trigger};
use super::rollout::{self, Loaded};
use crate::pipeline::snapshot::{Components, Filters, Shared, UpstreamParts};
use crate::process::priority::shorten_time_slice;
use crate::releases::loader::{Loader, component_name};
use crate::state::RedisDecisions;
use crate::telemetry::{FilesLabels, Metrics, ReloadLabels};
use crate::tls::reload::{CertificateErrors, Certificates, UpstreamSet, store_tls, upstream_tls};
use witgate_config::{Config, UpstreamComponent};
use witgate_runtime::filter::Filter;
use witgate_runtime::http_component::HttpComponent;
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

impl RefusedFilter {
    fn new(name: &str, filter: &witgate_config::Filter, error: LoadError) -> Self {
        Self { name: format!("filters.{name}"), location: filter.source.to_string(), error }
    }
}

impl std::fmt::Display for FilterErrors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, RefusedFilter { name, location, error }) in self.0.iter().enumerate() {
            let line_break = if index > 0 { "\n" } else { "" };
            write!(formatter, "{line_break}{name}: {location}: {error}")?;
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
/// All refused filters in one error.
pub fn load_filters(loader: &Loader, config: &Config, metrics: &Metrics) -> Result<Filters, FilterErrors> {
    loader.prepare(config);
    let mut filters = Filters::new();
    let mut refused = vec![];
    for (name, filter) in &config.filters {
        match loader.load(name, filter) {
            Ok(loaded) => {
                filters.insert(name.clone(), loaded);
            }
            Err(error) => {
                metrics.count_load_failure(name, error.reason.label());
                refused.push(RefusedFilter::new(name, filter, error));
            }
        }
    }
    if refused.is_empty() { Ok(filters) } else { Err(FilterErrors(refused)) }
}

/// Loads the component of every upstream that is one.
///
/// # Errors
/// All refused components in one error.
pub fn load_components(loader: &Loader, config: &Config, metrics: &Metrics) -> Result<Components, FilterErrors> {
    let mut components = Components::new();
    let mut refused = vec![];
    for (name, component) in config.components() {
        match loader.load_component(name, component) {
            Ok(loaded) => {
                components.insert(name.clone(), loaded);
            }
            Err(error) => {
                metrics.count_load_failure(&component_name(name), error.reason.label());
                let (name, location) = (format!("upstreams.{name}.component"), component.code.source.to_string());
                refused.push(RefusedFilter { name, location, error });
            }
        }
    }
    if refused.is_empty() { Ok(components) } else { Err(FilterErrors(refused)) }
}

/// What replaced a version since a configuration began to load.
#[derive(Default)]
struct Replaced {
    filters: HashMap<String, Arc<Filter>>,
    components: HashMap<String, Arc<HttpComponent>>,
}

/// Keeps the running state up to date with its files.
pub struct Reloader {
    shared: Arc<Shared>,
    loader: Loader,
    certificates: Mutex<Certificates>,
    source: ConfigSource,
    jobs: Arc<ReloadJobs>,
    /// The last read of the configuration's text, whether applied or not.
    last_read: Mutex<Result<String, String>>,
    /// The digest of the files that this text refers to.
    last_references: Mutex<[u8; 32]>,
    /// Held during a swap, so that no swap undoes another.
    replaced: Mutex<Replaced>,
}

impl Reloader {
    /// A reloader for a state that was built from `text`.
    pub fn new(
        shared: Arc<Shared>,
        loader: Loader,
        certificates: Certificates,
        source: ConfigSource,
        text: String,
    ) -> Self {
        loader.yield_to_traffic();
        let (jobs, certificates) = (Arc::default(), Mutex::new(certificates));
        let (last_read, last_references) = (Mutex::new(Ok(text)), Mutex::new(source.references_digest_in_use()));
        Self { shared, loader, certificates, source, jobs, last_read, last_references, replaced: Mutex::default() }
    }

    /// Begins to check the files, and to put changed ones into service. Returns at once.
    pub fn reload_changed(self: &Arc<Self>, trigger: Trigger) {
        if trigger == Trigger::Signal {
            self.loader.remote().check_now();
        }
        self.start("certificates", trigger, Self::check_certificates);
        self.start("files", trigger, Self::check_files);
    }

    /// Where gateways share decisions about the releases of filters, on servers of `stores`.
    pub(super) fn decision_stores(&self) -> Vec<(String, RedisDecisions)> {
        self.loader.decision_stores(&self.shared.snapshot.load().config)
    }

    /// Waits until no check, load or compilation runs.
    pub async fn wait_idle(&self) {
        self.jobs.wait_idle().await;
    }

    fn start(self: &Arc<Self>, name: &str, trigger: Trigger, job: impl Fn(&Arc<Self>, Trigger) + Send + 'static) {
        let this = self.clone();
        self.jobs.start(name, trigger, move |trigger| {
            if let Err(error) = shorten_time_slice() {
                tracing::debug!(%error, "reloads use the system's time slice");
            }
            job(&this, trigger);
        });
    }

    fn check_certificates(self: &Arc<Self>, trigger: Trigger) {
        lock(&self.certificates).reload_changed(trigger == Trigger::Signal);
        self.publish_check("certificates");
    }

    /// Compares the configuration and the filters with what is loaded, and starts a job for each
    /// difference.
    fn check_files(self: &Arc<Self>, trigger: Trigger) {
        let read = self.source.read();
        if read.is_err() && trigger != Trigger::Signal && !self.source.exists() {
            // A replacement in two steps is on its way, so only a signal reports a missing file.
            self.start_changed_filters(trigger);
            return self.publish_check("configuration");
        }
        let references = self.source.references_digest();
        let is_new = std::mem::replace(&mut *lock(&self.last_references), references) != references;
        let is_new = std::mem::replace(&mut *lock(&self.last_read), read.clone()) != read || is_new;
        match read {
            Ok(_) if is_new || trigger == Trigger::Signal => {
                self.start("configuration", trigger, Self::reload_config);
            }
            Err(why) if is_new || trigger == Trigger::Signal => {
                self.report_refused_config(&ReloadError::Config(why));
                self.start_changed_filters(trigger);
            }
            _ => self.start_changed_filters(trigger),
        }
        self.publish_check("configuration");
    }

    fn start_changed_filters(self: &Arc<Self>, trigger: Trigger) {
        for (name, filter) in &self.shared.snapshot.load().config.filters {
            if self.loader.has_changed(name, filter) {
                let own_name = name.clone();
                self.start(&format!("filter {name}"), trigger, move |this, _| this.reload_filter(&own_name));
            }
        }
        for (name, component) in self.shared.snapshot.load().config.components() {
            if self.loader.has_component_changed(name, component) {
                let own_name = name.clone();
                self.start(&component_name(name), trigger, move |this, _| this.reload_component(&own_name));
            }
        }
    }

    fn reload_config(self: &Arc<Self>, trigger: Trigger) {
        let Ok(text) = lock(&self.last_read).clone() else { return };
        let began = Instant::now();
        let loaded = self.load_config(&text);
        match loaded.and_then(|(config, code, upstreams)| self.apply_config(config, code, upstreams)) {
            Ok(()) => tracing::info!(ms = began.elapsed().as_millis() as u64, "the configuration is in service"),
            Err(error) => {
                self.return_to(&self.shared.snapshot.load().config);
                self.report_refused_config(&error);
            }
        }
        // A refused configuration does not keep a changed filter of the present one waiting.
        self.start_changed_filters(trigger);
    }

    /// Takes back what the loader prepared for a configuration that was refused.
    fn return_to(&self, config: &Config) {
        self.loader.prepare(config);
        self.loader.remote().retain(config.sourced());
    }

    /// Changes when a source on a server has a new version.
    pub fn new_versions(&self) -> watch::Receiver<()> {
        self.loader.remote().subscribe()
    }

    /// Reads a configuration and loads its filters, which may take long.
    fn load_config(&self, text: &str) -> Result<(Config, (Filters, Components), UpstreamSet), ReloadError> {
        let config = self.source.parse(text);
        // The new text may refer to other files.
        *lock(&self.last_references) = self.source.references_digest_in_use();
        let config = config.map_err(ReloadError::Config)?;
        check_fixed_keys(&self.shared.snapshot.load().config, &config)?;
        config_source::log_warnings(&config);
        *lock(&self.replaced) = Replaced::default();
        let upstreams = lock(&self.certificates).prepare(&config)?;
        let metrics = &self.shared.metrics;
        let connected = self.loader.connect_stores(&config, &store_tls(&upstream_tls(&upstreams)), metrics);
        connected.map_err(ReloadError::Snapshot)?;
        let filters = load_filters(&self.loader, &config, metrics)?;
        let components = load_components(&self.loader, &config, metrics)?;
        Ok((config, (filters, components), upstreams))
    }

    fn apply_config(
        &self,
        config: Config,
        (mut filters, mut components): (Filters, Components),
        upstreams: UpstreamSet,
    ) -> Result<(), ReloadError> {
        let replaced = lock(&self.replaced);
        let current = self.shared.snapshot.load_full();
        for (name, newer) in &replaced.filters {
            let Some(settings) = config.filters.get(name) else { continue };
            let filter = if current.config.filters.get(name) == Some(settings) {
                newer.clone()
            } else {
                // The loader has this version, so this takes no time.
                let loaded = self.loader.load(name, settings);
                loaded.map_err(|error| FilterErrors(vec![RefusedFilter::new(name, settings, error)]))?
            };
            filters.insert(name.clone(), filter);
        }
        for (name, newer) in &replaced.components {
            if current.config.upstreams.get(name) == config.upstreams.get(name) {
                components.insert(name.clone(), newer.clone());
            }
        }
        let telemetry = &self.shared.telemetry;
        let sinks = telemetry.open(Some(&current.config), &config).map_err(ReloadError::Telemetry)?;
        let config = Arc::new(config);
        let upstream_parts = UpstreamParts { tls: upstream_tls(&upstreams), components };
        let route_limiters = self.loader.route_limiters(&config);
        let publication =
            Loaded { config: config.clone(), filters: &filters, route_limiters, upstream_parts, is_new_config: true };
        let metrics = &self.shared.metrics;
        known_series::begin(metrics, &config);
        let published = rollout::publish(&self.shared, &self.loader, publication);
        published
            .inspect_err(|_| known_series::forget(metrics, &config, &current.config))
            .map_err(ReloadError::Snapshot)?;
        telemetry.adopt(sinks);
        lock(&self.certificates).adopt(upstreams);
        known_series::forget(metrics, &current.config, &config);
        self.loader.retain(&config, &self.shared.metrics);
        self.shared.reloads.apply_config();
        Ok(())
    }

    /// Loads a changed filter and puts it into service.
    fn reload_filter(self: &Arc<Self>, name: &str) {
        let config = self.shared.snapshot.load().config.clone();
        let Some(settings) = config.filters.get(name) else { return };
        match self.loader.load_changed(name, settings) {
            None => {}
            Some(Ok(loaded)) => self.apply_filter(name, settings, loaded),
            Some(Err(error)) => self.report_refused_filter(name, settings, &error),
        }
    }

    fn apply_filter(&self, name: &str, settings: &witgate_config::Filter, loaded: Arc<Filter>) {
        let mut replaced = lock(&self.replaced);
        let current = self.shared.snapshot.load_full();
        if current.config.filters.get(name) != Some(settings) {
            // A new configuration came first, and it loaded the filter with its own settings.
            return;
        }
        let filters = Filters::from([(name.to_owned(), loaded.clone())]);
        let (config, upstream_parts) = (current.config.clone(), current.upstream_parts.clone());
        let route_limiters = current.route_limiters.clone();
        let publication = Loaded { config, filters: &filters, route_limiters, upstream_parts, is_new_config: false };
        self.shared.reloads.accept_filter(name);
        match rollout::publish(&self.shared, &self.loader, publication) {
            Ok(()) => {
                self.report_in_service(name, &loaded);
                replaced.filters.insert(name.to_owned(), loaded);
            }
            Err(why) => {
                self.count("refused");
                tracing::error!(why, "the filters were refused; the previous ones stay in service");
            }
        }
    }

    /// Loads the changed component of an upstream and puts it into service.
    fn reload_component(self: &Arc<Self>, name: &str) {
        let config = self.shared.snapshot.load().config.clone();
        let Some(component) = config.upstreams.get(name).and_then(|upstream| upstream.target.component()) else {
            return;
        };
        if !self.loader.has_component_changed(name, component) {
            return;
        }
        match self.loader.load_component(name, component) {
            Ok(loaded) => self.apply_component(name, component, loaded),
            Err(error) => {
                let shown = component_name(name);
                self.shared.metrics.count_load_failure(&shown, error.reason.label());
                self.count("refused");
                let (file, reason) = (&component.code.source, error.reason.label());
                tracing::error!(
                    upstream = name, %file, reason, why = error.message,
                    "the new component was refused; the previous version stays in service"
                );
            }
        }
    }

    fn apply_component(&self, name: &str, component: &UpstreamComponent, loaded: Arc<HttpComponent>) {
        let mut replaced = lock(&self.replaced);
        let current = self.shared.snapshot.load_full();
        let present = current.config.upstreams.get(name).and_then(|upstream| upstream.target.component());
        if present != Some(component) {
            // A new configuration came first, and it loaded the component with its own settings.
            return;
        }
        let mut upstream_parts = current.upstream_parts.clone();
        upstream_parts.components.insert(name.to_owned(), loaded.clone());
        let (config, route_limiters) = (current.config.clone(), current.route_limiters.clone());
        let filters = &Filters::new();
        let publication = Loaded { config, filters, route_limiters, upstream_parts, is_new_config: false };
        match rollout::publish(&self.shared, &self.loader, publication) {
            Ok(()) => {
                tracing::info!(upstream = name, component = &*loaded.label, "in service");
                replaced.components.insert(name.to_owned(), loaded);
            }
            Err(why) => {
                self.count("refused");
                tracing::error!(why, upstream = name, "the component was refused; the previous one stays in service");
            }
        }
    }

    /// Shows that the gateway still looks at these files.
    fn publish_check(&self, files: &'static str) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.shared.metrics.files_checked.get_or_create(&FilesLabels { files }).set(seconds);
    }

    /// Names a filter that serves all exchanges. A release has log lines of its own.
    fn report_in_service(&self, name: &str, loaded: &Arc<Filter>) {
        let snapshot = self.shared.snapshot.load();
        if snapshot.filters.get(name).is_some_and(|serving| Arc::ptr_eq(serving, loaded)) {
            let filters = format!("{name} {} ({})", loaded.version, loaded.short_digest);
            tracing::info!(filters, "in service");
        }
    }

    fn report_refused_config(&self, error: &ReloadError) {
        self.count("refused");
        self.shared.reloads.refuse_config(&error.to_string());
        if let ReloadError::Filters(FilterErrors(refused)) = error {
            for RefusedFilter { name, error, .. } in refused {
                let name = name.strip_prefix("filters.").unwrap_or(name);
                self.shared.reloads.refuse_filter(name, &error.message);
            }
        }
        tracing::error!(why = %error, "the configuration was refused; the previous one stays in service");
    }

    /// Reports a refused filter once, because the loader does not try the same revision again.
    fn report_refused_filter(&self, name: &str, filter: &witgate_config::Filter, error: &LoadError) {
        self.shared.metrics.count_load_failure(name, error.reason.label());
        self.shared.reloads.refuse_filter(name, &error.message);
        self.count("refused");
        tracing::error!(
            filter = name,
            source = %filter.source,
            reason = error.reason.label(),
            why = error.message,
            "the new file was refused; the previous version stays in service"
        );
    }

    fn count(&self, result: &'static str) {
        self.shared.metrics.reloads.get_or_create(&ReloadLabels { result }).inc();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses changes of keys that need a restart, so that an operator does not expect an effect.
fn check_fixed_keys(old: &Config, new: &Config) -> Result<(), ReloadError> {
    let keys = [
        ("listeners", old.listeners != new.listeners),
        ("workers", old.workers != new.workers),
        ("admin.address", old.admin.address != new.admin.address),
        ("admin.socket", old.admin.socket != new.admin.socket),
        ("admin.tls", old.admin.tls != new.admin.tls),
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
