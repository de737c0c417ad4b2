//! Puts changed filters and configurations into service: notices, loads, swaps.
//!
//! Certificates are looked at first, by themselves (`certs.rs`). A configuration is taken whole or not at all. A changed .wasm is taken by itself: if it is refused, that filter's old version serves on and the others are
//! not touched. A file is noticed by the watcher (its folder is watched, since builds replace files by renaming), by SIGHUP and by looking at the clock; which of
//! them it was makes no difference. Must not know: connections, requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::pipeline::snapshot::{Filters, Shared, Snapshot};
use crate::releases::loader::Loader;
use crate::telemetry::{FilterLabels, LoadFailureLabels, Metrics, ReloadLabels};
use crate::tls::reload::{Certificates, upstream_tls};
use witgate_config::Config;
use witgate_runtime::filter::Filter;

/// The largest gateway.yaml in bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// After the last event of a burst: a copy in progress gets the time to finish.
const QUIET: Duration = Duration::from_millis(20);
/// A burst that does not end is looked at all the same.
const BURST_MAX: Duration = Duration::from_millis(500);

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, read again when it changes.
    File(PathBuf),
    /// A text that does not change, with the folder that its paths are relative to: the demo.
    Text {
        /// gateway.yaml.
        text: String,
        /// For relative paths.
        base: PathBuf,
    },
}

impl Source {
    /// The text of the configuration. The error is for the operator.
    pub fn text(&self) -> Result<String, String> {
        match self {
            Self::Text { text, .. } => Ok(text.clone()),
            Self::File(path) => {
                let shown = path.display();
                let fail = |error: std::io::Error| format!("{shown}: {error}; give the right path with --config");
                let length = std::fs::metadata(path).map_err(fail)?.len();
                if length > CONFIG_BYTES_MAX {
                    return Err(format!("{shown}: {length} bytes are more than the {CONFIG_BYTES_MAX} that are read"));
                }
                std::fs::read_to_string(path).map_err(fail)
            }
        }
    }

    /// Checks a text of this source. The error is for the operator: every problem with its line.
    pub fn parse(&self, text: &str) -> Result<Config, String> {
        let (name, base) = match self {
            Self::Text { base, .. } => ("demo".to_owned(), base.clone()),
            Self::File(path) => {
                let absolute = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
                (path.display().to_string(), absolute.parent().map(Path::to_owned).unwrap_or_default())
            }
        };
        Config::parse(text, &name, &base).map_err(|errors| errors.to_string())
    }
}

/// Loads every filter of a configuration; all refusals at once.
pub fn load_all(loader: &mut Loader, config: &Config, metrics: &Metrics) -> Result<Filters, Vec<String>> {
    let mut filters = Filters::new();
    let mut refusals = vec![];
    for (name, filter) in &config.filters {
        match loader.load(name, filter) {
            Ok(ready) => {
                filters.insert(name.clone(), ready);
            }
            Err(error) => {
                let labels = LoadFailureLabels { filter: name.as_str().into(), reason: error.reason.label() };
                metrics.load_failures.get_or_create(&labels).inc();
                refusals.push(format!("filters.{name}: {}: {error}", filter.source.display()));
            }
        }
    }
    if refusals.is_empty() { Ok(filters) } else { Err(refusals) }
}

/// Counts what is loaded, and nothing that was.
pub fn publish_filters(metrics: &Metrics, filters: &Filters) {
    metrics.filters.clear();
    for (name, filter) in filters {
        metrics.filters.get_or_create(&labels(name, filter)).set(1);
    }
}

/// What names a loaded filter.
pub(crate) fn labels(name: &str, filter: &Filter) -> FilterLabels {
    FilterLabels { filter: name.into(), version: filter.version.clone(), digest: filter.short_digest.clone() }
}

/// Keeps the running state in step with the files.
pub struct Reloader {
    shared: Arc<Shared>,
    loader: Loader,
    certificates: Certificates,
    source: Source,
    text: String,
}

/// Why to look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The watcher saw something.
    Watch,
    /// The interval is over.
    Interval,
    /// SIGHUP: everything is looked at, changed or not.
    Signal,
}

impl Reloader {
    /// A reloader for a state that was just put in place from `text`.
    pub fn new(
        shared: Arc<Shared>,
        mut loader: Loader,
        certificates: Certificates,
        source: Source,
        text: String,
    ) -> Self {
        loader.yield_to_traffic();
        Self { shared, loader, certificates, source, text }
    }

    /// Looks at the files and puts what changed into service. Blocks for as long as compiling takes.
    pub fn look(&mut self, cause: Cause) {
        // First, since it takes no time: compiling does.
        self.certificates.reload_changed(cause == Cause::Signal);
        match self.source.text() {
            Ok(text) if text != self.text || cause == Cause::Signal => {
                self.text = text;
                self.reload_config();
            }
            // A file that cannot be read may be in the middle of being replaced: only worth a word when somebody asked.
            Err(why) if cause == Cause::Signal => {
                self.count("refused");
                tracing::error!(why, "the configuration was refused; the one before serves on");
            }
            _ => self.reload_filters(),
        }
    }

    fn reload_config(&mut self) {
        let began = Instant::now();
        let outcome = self.source.parse(&self.text).and_then(|config| {
            check_fixed(&self.shared.snapshot.load().config, &config)?;
            self.loader.set_limits(&config);
            let filters =
                load_all(&mut self.loader, &config, &self.shared.metrics).map_err(|refusals| refusals.join("\n"))?;
            let upstreams = self.certificates.prepare(&config).map_err(|errors| errors.to_string())?;
            let snapshot = Snapshot::new(Arc::new(config), filters, upstream_tls(&upstreams), &self.shared.registry)?;
            Ok((snapshot, upstreams))
        });
        match outcome {
            Ok((snapshot, upstreams)) => {
                self.certificates.adopt(upstreams);
                self.loader.retain(&snapshot.config);
                publish_filters(&self.shared.metrics, &snapshot.filters);
                // Who sees the new state sees it counted.
                self.count("applied");
                self.shared.swap(snapshot);
                tracing::info!(ms = began.elapsed().as_millis() as u64, "the configuration is in service");
            }
            Err(why) => {
                self.loader.set_limits(&self.shared.snapshot.load().config);
                self.count("refused");
                tracing::error!(why, "the configuration was refused; the one before serves on");
            }
        }
    }

    fn reload_filters(&mut self) {
        let before = self.shared.snapshot.load_full();
        let mut filters = before.filters.clone();
        let mut swapped = vec![];
        for (name, filter) in &before.config.filters {
            if !self.loader.has_changed(name, filter) {
                continue;
            }
            match self.loader.load(name, filter) {
                Ok(ready) => {
                    swapped.push(format!("{name} {} ({})", ready.version, ready.short_digest));
                    filters.insert(name.clone(), ready);
                }
                Err(error) => self.refuse(name, filter, &error),
            }
        }
        if swapped.is_empty() {
            return;
        }
        match Snapshot::new(before.config.clone(), filters, before.clients.clone(), &self.shared.registry) {
            Ok(snapshot) => {
                publish_filters(&self.shared.metrics, &snapshot.filters);
                // Who sees the new state sees it counted.
                self.count("applied");
                self.shared.swap(snapshot);
                tracing::info!(filters = swapped.join(", "), "in service");
            }
            Err(why) => {
                self.count("refused");
                tracing::error!(why, "the filters were refused");
            }
        }
    }

    /// Says why a file is not taken: once, for it is not tried again before it changes.
    fn refuse(&self, name: &str, filter: &witgate_config::Filter, error: &witgate_runtime::load_error::LoadError) {
        let labels = LoadFailureLabels { filter: name.into(), reason: error.reason.label() };
        self.shared.metrics.load_failures.get_or_create(&labels).inc();
        self.count("refused");
        tracing::error!(
            filter = name,
            file = %filter.source.display(),
            reason = error.reason.label(),
            why = error.message,
            "the new file was refused; the version before serves on"
        );
    }

    fn count(&self, result: &'static str) {
        self.shared.metrics.reloads.get_or_create(&ReloadLabels { result }).inc();
    }
}

/// What cannot change while the gateway runs: refused with advice rather than ignored.
fn check_fixed(old: &Config, new: &Config) -> Result<(), String> {
    let mut fixed = vec![];
    if old.listeners != new.listeners {
        fixed.push("listeners");
    }
    if old.workers != new.workers {
        fixed.push("workers");
    }
    if old.admin != new.admin {
        fixed.push("admin");
    }
    if old.state_dir != new.state_dir {
        fixed.push("state");
    }
    if old.log != new.log {
        fixed.push("log");
    }
    if fixed.is_empty() {
        return Ok(());
    }
    Err(format!("{} cannot change while the gateway runs: restart it, or put the old value back", fixed.join(", ")))
}

/// What the watcher saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A .wasm got its name: it is whole.
    Filter,
    /// Something else: a file may be in the middle of being written, a certificate's key may follow.
    Changed,
}

/// Watches the folders of the configuration, its filters and its certificates; an event for any file in them is worth a look.
pub struct FileWatcher {
    watcher: notify::RecommendedWatcher,
    folders: Vec<PathBuf>,
}

impl FileWatcher {
    /// Sends to `events` when something in a watched folder changes.
    pub fn new(events: mpsc::UnboundedSender<Seen>) -> Result<Self, notify::Error> {
        let watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            // Reading a file is an event too: not one that changes anything.
            let Some(event) = event.ok().filter(|event| !event.kind.is_access()) else { return };
            let is_named = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)));
            let is_filter = event.paths.last().and_then(|path| path.extension()).is_some_and(|kind| kind == "wasm");
            // The receiver is gone only when the gateway ends.
            let _ = events.send(if is_named && is_filter { Seen::Filter } else { Seen::Changed });
        })?;
        Ok(Self { watcher, folders: vec![] })
    }

    /// Watches what this state is made of, and no longer what it is not.
    pub fn follow(&mut self, source: &Source, config: &Config) {
        let files = config.filters.values().map(|filter| filter.source.as_path()).chain(config.certificate_files());
        let mut folders: Vec<PathBuf> = files.filter_map(Path::parent).map(Path::to_owned).collect();
        if let Source::File(path) = source
            && let Some(parent) = std::path::absolute(path).ok().as_deref().and_then(Path::parent)
        {
            folders.push(parent.to_owned());
        }
        folders.sort();
        folders.dedup();
        for folder in self.folders.iter().filter(|folder| !folders.contains(folder)) {
            // A folder that is gone is no longer watched anyway.
            let _ = self.watcher.unwatch(folder);
        }
        for folder in folders.iter().filter(|folder| !self.folders.contains(folder)) {
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "cannot be watched: changes are seen at the interval or by SIGHUP");
            }
        }
        self.folders = folders;
    }
}

/// Waits until a burst of events is over, or until one of them says that a file is whole.
pub async fn settle(first: Seen, events: &mut mpsc::UnboundedReceiver<Seen>) {
    let until = tokio::time::Instant::now() + BURST_MAX;
    let mut seen = first;
    while seen == Seen::Changed {
        match tokio::time::timeout_at(until, tokio::time::timeout(QUIET, events.recv())).await {
            Ok(Ok(Some(next))) => seen = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_is_named() -> anyhow::Result<()> {
        let text = "upstreams: {a: {builtin: echo}}\nroutes: [{upstream: a}]\n";
        let old = Config::parse(text, "f", Path::new("/")).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let mut new = old.clone();
        assert_eq!(check_fixed(&old, &new), Ok(()));
        new.workers += 1;
        let why = check_fixed(&old, &new).err().unwrap_or_default();
        assert!(why.starts_with("workers cannot change"), "{why}");
        Ok(())
    }
}
