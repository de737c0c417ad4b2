//! Turns the filters of a configuration, and the components of its upstreams, into code that can be
//! called.
//!
//! A component that the cache contains is only hashed. Another one is copied, described, checked
//! and compiled in a child process into the cache. So the gateway's process holds a component's
//! bytes only during its compilation, and never a compiler. At the end the loader creates one
//! instance, because a filter without instances must be refused while its previous version serves.
//!
//! This module does not know: requests, listeners, when sources are checked for changes.

mod check;
mod first_instance;
mod places;
mod settings;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::artifact_cache::ArtifactCache;
use super::candidate::{Candidate, Requirements};
use super::compiler::{Job, compile};
use super::component_source::{ComponentSource, changed_meanwhile, check_source, manifest_version};
use super::content_hash::ContentHash;
use super::examples_gate;
use super::remote::RemoteSources;
use super::source::Revision;
use super::version_registry::Releases;
use super::versions::Versions;
use crate::process::priority::Priority;
use crate::state::{RedisDecisions, RouteLimiters, StoreTls, Stores};
use crate::telemetry::Metrics;
use witgate_config::{CompileLimits, Config, Denied, ExamplesGate, UpstreamComponent};
use witgate_runtime::component::ComponentInfo;
use witgate_runtime::engine::{Artifact, Engine};
use witgate_runtime::filter::Filter;
use witgate_runtime::http_component::{HttpComponent, HttpComponentSettings};
use witgate_runtime::load_error::{LoadError, LoadErrorReason};

pub use self::check::{check, check_component};

use self::first_instance::{check_instantiates, check_starts};
use self::places::Places;
use self::settings::{http_grant, settings};

/// Compilations that run at the same time. Each may use `compile.memory`.
const COMPILATIONS_MAX: usize = 4;
/// Components that are read and described at the same time, before they are compiled. Each may have
/// 128 MiB.
const READS_MAX: usize = 4;

/// Loads filters and remembers the loaded ones. Different filters load at the same time, so a slow
/// compilation delays its own filter only.
pub struct Loader {
    engine: Engine,
    cache: Result<ArtifactCache, String>,
    state_dir: PathBuf,
    remote: Arc<RemoteSources>,
    denied: Arc<ArcSwap<Denied>>,
    /// Replaces a state directory that cannot be used. Deleted on drop.
    _temporary: Option<tempfile::TempDir>,
    state: Mutex<State>,
    compilations: Places,
    reads: Places,
}

/// What changes while the gateway runs. It is never locked during a read of a file or a
/// compilation.
struct State {
    limits: CompileLimits,
    priority: Priority,
    stores: Stores,
    /// The last load of each filter, by the filter's name. Two filters may share a source.
    loaded: HashMap<String, Loaded>,
    /// The revision that was refused, by the filter's name. It is not tried again.
    refused: HashMap<String, Revision>,
    /// The digest of the component whose examples were run last, by the filter's name.
    examined: HashMap<String, String>,
    /// Held while a filter is loaded, by the filter's name: a second load finds the first's result.
    loading: HashMap<String, Arc<Mutex<()>>>,
}

/// A loaded revision.
#[derive(Clone)]
struct Loaded {
    location: String,
    revision: Revision,
    content: ContentHash,
    info: ComponentInfo,
    artifact: Artifact,
}

impl Loader {
    /// A loader with its cache in the configuration's state directory. If that is not private, it
    /// uses a temporary directory and logs a warning.
    pub fn new(engine: Engine, config: &Config) -> Self {
        let fingerprint = engine.fingerprint();
        let mut state_dir = config.state_dir.clone();
        let mut temporary = None;
        let mut cache = ArtifactCache::open(&state_dir, &fingerprint);
        if let Err(why) = &cache {
            tracing::warn!(folder = %state_dir.display(), why, "compiled filters are not kept: every start compiles them again");
            if let Ok(folder) = tempfile::tempdir() {
                state_dir = folder.path().to_owned();
                cache = ArtifactCache::open(&state_dir, &fingerprint);
                temporary = Some(folder);
            }
        }
        Self {
            engine,
            cache,
            remote: Arc::new(RemoteSources::new(&state_dir)),
            denied: Arc::new(ArcSwap::from_pointee(config.denied.clone())),
            state_dir,
            _temporary: temporary,
            state: Mutex::new(State {
                limits: config.compile,
                priority: Priority::Equal,
                stores: Stores::default(),
                loaded: HashMap::new(),
                refused: HashMap::new(),
                examined: HashMap::new(),
                loading: HashMap::new(),
            }),
            compilations: Places::new(COMPILATIONS_MAX),
            reads: Places::new(READS_MAX),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives traffic precedence over compilations from here on.
    pub fn yield_to_traffic(&self) {
        self.lock().priority = Priority::Idle;
    }

    /// Prepares to load the filters of this configuration: applies its compile limits and its list
    /// of denied components, and follows its sources on servers. Waits for those that have no
    /// usable version on disk.
    pub fn prepare(&self, config: &Config) {
        self.lock().limits = config.compile;
        self.denied.store(Arc::new(config.denied.clone()));
        self.remote.follow(config.sourced());
    }

    /// The sources on servers.
    pub fn remote(&self) -> &Arc<RemoteSources> {
        &self.remote
    }

    /// Loads one filter. It is fast if the source did not change since the last load. Different
    /// filters load at the same time. If the newest version of a source on a server is refused,
    /// the one that was loaded before is loaded again.
    ///
    /// # Errors
    /// Why the component is refused.
    pub fn load(&self, name: &str, filter: &witgate_config::Filter) -> Result<Arc<Filter>, LoadError> {
        let loading = self.lock().loading.entry(name.to_owned()).or_default().clone();
        let _loading = loading.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.load_alone(name, filter);
        let Err(error) = &result else { return result };
        let good = filter.source.remote().and_then(|location| self.remote.last_good(location));
        let Some(good) =
            good.and_then(|good| self.load_source(name, filter, &ComponentSource::Remote(Box::new(good))).ok())
        else {
            return result;
        };
        tracing::error!(filter = name, location = %filter.source, why = %error, digest = &*good.short_digest, "the newest version was refused; the last good one is loaded");
        Ok(good)
    }

    /// Loads one filter as [`load`](Self::load) does, if it [has changed](Self::has_changed).
    pub fn load_changed(&self, name: &str, filter: &witgate_config::Filter) -> Option<Result<Arc<Filter>, LoadError>> {
        let loading = self.lock().loading.entry(name.to_owned()).or_default().clone();
        let _loading = loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_changed(name, filter).then(|| self.load_alone(name, filter))
    }

    fn load_alone(&self, name: &str, filter: &witgate_config::Filter) -> Result<Arc<Filter>, LoadError> {
        let source = self.source_of(filter);
        let revision = source.get().revision()?;
        let result = self.load_source(name, filter, &source);
        self.remember(name, revision, result.is_ok());
        result
    }

    /// Loads the component of an upstream, as [`load`](Self::load) does for a filter.
    ///
    /// # Errors
    /// Why the component is refused.
    pub fn load_component(
        &self,
        upstream: &str,
        component: &UpstreamComponent,
    ) -> Result<Arc<HttpComponent>, LoadError> {
        let name = component_name(upstream);
        let loading = self.lock().loading.entry(name.clone()).or_default().clone();
        let _loading = loading.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = HttpComponentSettings {
            name: upstream.into(),
            memory_bytes: component.code.memory_bytes,
            concurrency: component.code.concurrency,
            env: component.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            http: (!component.code.http.origins.is_empty())
                .then(|| http_grant(format!("upstreams.{upstream}.component.http"), &component.code.http)),
        };
        let source = self.source_of(&component.code);
        let revision = source.get().revision()?;
        let result = self.load_component_from(upstream, component, &source, &settings);
        self.remember(&name, revision, result.is_ok());
        let Err(error) = &result else { return result };
        let good = component.code.source.remote().and_then(|location| self.remote.last_good(location));
        let Some(good) = good.and_then(|good| {
            let source = ComponentSource::Remote(Box::new(good));
            self.load_component_from(upstream, component, &source, &settings).ok()
        }) else {
            return result;
        };
        tracing::error!(upstream, location = %component.code.source, why = %error, digest = &good.info.digest[..12], "the newest version was refused; the last good one is loaded");
        Ok(good)
    }

    fn load_component_from(
        &self,
        upstream: &str,
        component: &UpstreamComponent,
        source: &ComponentSource,
        settings: &HttpComponentSettings,
    ) -> Result<Arc<HttpComponent>, LoadError> {
        let denied = self.denied.load_full();
        let requirements = Requirements { filter: &component.code, settings: None, denied: &denied };
        let revision = source.get().revision()?;
        let name = component_name(upstream);
        let loaded = self.load_revision(&name, source, &revision, &requirements, |artifact, info| {
            let loaded = Arc::new(HttpComponent::new(&self.engine, artifact, info, settings.clone())?);
            check_starts(upstream, &loaded)?;
            Ok(loaded)
        })?;
        if let ComponentSource::Remote(remote) = source {
            remote.accept(manifest_version(&loaded.info));
        }
        Ok(loaded)
    }

    /// Remembers whether a revision was refused: it is not tried again until it changes.
    fn remember(&self, name: &str, revision: Revision, is_loaded: bool) {
        let refused = &mut self.lock().refused;
        if is_loaded {
            refused.remove(name);
        } else {
            refused.insert(name.to_owned(), revision);
        }
    }

    /// Whether the component of an upstream [has changed](Self::has_changed).
    pub fn has_component_changed(&self, upstream: &str, component: &UpstreamComponent) -> bool {
        self.has_changed(&component_name(upstream), &component.code)
    }

    fn load_source(
        &self,
        name: &str,
        filter: &witgate_config::Filter,
        source: &ComponentSource,
    ) -> Result<Arc<Filter>, LoadError> {
        let settings = settings(name, filter, self.lock().stores.filter(name, filter));
        let denied = self.denied.load_full();
        let requirements = Requirements { filter, settings: Some(&settings), denied: &denied };
        let revision = source.get().revision()?;
        let loaded = self.load_revision(name, source, &revision, &requirements, |artifact, info| {
            let loaded = Arc::new(Filter::new(&self.engine, artifact, info, settings.clone())?);
            check_instantiates(&loaded, &filter.config)?;
            self.check_examples(name, filter, source, &revision, &loaded)?;
            Ok(loaded)
        })?;
        if let ComponentSource::Remote(remote) = source {
            remote.accept(manifest_version(&loaded.info));
        }
        Ok(loaded)
    }

    /// Runs the examples of a component, once for each component.
    fn check_examples(
        &self,
        name: &str,
        filter: &witgate_config::Filter,
        source: &ComponentSource,
        revision: &Revision,
        loaded: &Arc<Filter>,
    ) -> Result<(), LoadError> {
        let gate = filter.release.as_ref().map_or(ExamplesGate::Off, |release| release.examples);
        let digest = &loaded.info.digest;
        if gate == ExamplesGate::Off || self.lock().examined.get(name) == Some(digest) {
            return Ok(());
        }
        let copy = source.get().copy(revision)?;
        examples_gate::check(&self.engine, loaded, copy.bytes(), gate)?;
        self.lock().examined.insert(name.to_owned(), digest.clone());
        Ok(())
    }

    fn source_of(&self, filter: &witgate_config::Filter) -> ComponentSource {
        ComponentSource::new(&filter.source, &self.remote)
    }

    /// Whether a filter's source has a revision that was neither loaded nor refused. A source that
    /// cannot be reached has not changed: the loaded version stays in service.
    pub fn has_changed(&self, name: &str, filter: &witgate_config::Filter) -> bool {
        let Ok(revision) = self.source_of(filter).get().revision() else { return false };
        let state = self.lock();
        let is_loaded = state.loaded.get(name).is_some_and(|loaded| loaded.revision == revision);
        !is_loaded && state.refused.get(name) != Some(&revision)
    }

    /// The hash of the component that was loaded last for a filter.
    pub fn content(&self, name: &str) -> Option<ContentHash> {
        self.lock().loaded.get(name).map(|loaded| loaded.content)
    }

    /// The versions of the filters, as the state directory records them.
    pub fn open_releases(&self) -> Releases {
        let cache = ArtifactCache::open(&self.state_dir, &self.engine.fingerprint());
        let versions = Versions::new(self.engine.clone(), self.denied.clone(), cache);
        Releases::open(versions, &self.state_dir)
    }

    /// Begins to connect to the shared stores of a configuration, before its filters are loaded.
    ///
    /// # Errors
    /// Why that is not possible. A server that cannot be reached is not an error.
    pub fn connect_stores(&self, config: &Config, tls: &StoreTls, metrics: &Metrics) -> Result<(), String> {
        self.lock().stores.connect(config, tls, metrics)
    }

    /// The rate limiters of the routes of a configuration.
    pub fn route_limiters(&self, config: &Config) -> RouteLimiters {
        self.lock().stores.routes(config)
    }

    /// Where gateways share decisions about the releases of filters, on servers of `stores`.
    pub fn decision_stores(&self, config: &Config) -> Vec<(String, RedisDecisions)> {
        self.lock().stores.decision_stores(config)
    }

    /// Forgets the filters and stores that this configuration does not contain.
    pub fn retain(&self, config: &Config, metrics: &Metrics) {
        let mut state = self.lock();
        let components: HashSet<String> = config.components().map(|(name, _)| component_name(name)).collect();
        let is_known = |name: &String| config.filters.contains_key(name) || components.contains(name);
        state.loaded.retain(|name, _| is_known(name));
        state.examined.retain(|name, _| config.filters.contains_key(name));
        state.refused.retain(|name, _| is_known(name));
        state.loading.retain(|name, _| is_known(name));
        state.stores.retain(config, metrics);
        drop(state);
        self.remote.retain(config.sourced());
    }

    /// Loads a revision of a source. `link` makes the code callable.
    fn load_revision<T>(
        &self,
        name: &str,
        source: &ComponentSource,
        revision: &Revision,
        requirements: &Requirements<'_>,
        link: impl FnOnce(&Artifact, ComponentInfo) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let loaded = self.find_or_compile(name, source, revision, requirements)?;
        let linked = link(&loaded.artifact, loaded.info.clone())?;
        loaded.artifact.prefault();
        self.lock().loaded.insert(name.to_owned(), loaded);
        Ok(linked)
    }

    /// The checked and compiled component of a revision.
    fn find_or_compile(
        &self,
        name: &str,
        of_filter: &ComponentSource,
        revision: &Revision,
        requirements: &Requirements<'_>,
    ) -> Result<Loaded, LoadError> {
        let (filter, source) = (requirements.filter, of_filter.get());
        let signed = check_source(name, filter, source, revision)?;
        let location = source.location();
        let known = self.lock().loaded.get(name).cloned();
        if let Some(loaded) = known.filter(|loaded| loaded.revision == *revision && loaded.location == location) {
            requirements.check(&loaded.info)?;
            of_filter.check(filter, &loaded.info)?;
            return Ok(loaded);
        }
        let began = Instant::now();
        let content = signed.map_or_else(|| source.hash(revision), Ok)?;
        let (content, info, artifact) = match self.find(name, &content)? {
            Some((info, artifact)) => {
                requirements.check(&info)?;
                of_filter.check(filter, &info)?;
                let ms = began.elapsed().as_millis() as u64;
                tracing::info!(filter = name, digest = &info.digest[..12], ms, "taken from the cache");
                (content, info, artifact)
            }
            None => {
                let (compiled, info, artifact) = self.compile(name, of_filter, revision, requirements)?;
                if signed.is_some_and(|signed| signed != compiled) {
                    return Err(changed_meanwhile());
                }
                (compiled, info, artifact)
            }
        };
        Ok(Loaded { location, revision: revision.clone(), content, info, artifact })
    }

    /// Finds a component that another filter uses, or that the cache contains.
    fn find(&self, name: &str, content: &ContentHash) -> Result<Option<(ComponentInfo, Artifact)>, LoadError> {
        let same = self.lock().loaded.values().find(|loaded| loaded.content == *content).cloned();
        if let Some(same) = same {
            return Ok(Some((same.info, same.artifact)));
        }
        let found = self.cache()?.get(&self.engine, content);
        Ok(found.unwrap_or_else(|error| {
            tracing::warn!(filter = name, %error, "a cached filter cannot be used: compiling it again");
            None
        }))
    }

    fn compile(
        &self,
        name: &str,
        source: &ComponentSource,
        revision: &Revision,
        requirements: &Requirements<'_>,
    ) -> Result<(ContentHash, ComponentInfo, Artifact), LoadError> {
        let began = Instant::now();
        let (limits, priority) = {
            let state = self.lock();
            (state.limits, state.priority)
        };
        let read = || {
            let _place = self.reads.take();
            Candidate::read(source.get(), revision, Some(requirements), &limits)
        };
        let candidate = read()?;
        source.check(requirements.filter, &candidate.info)?;
        let content = candidate.hash();
        let (place, candidate) = match self.compilations.try_take() {
            Some(place) => (place, candidate),
            None => {
                // Many components that wait would take gigabytes.
                drop(candidate);
                (self.compilations.take(), read()?)
            }
        };
        if candidate.hash() != content {
            return Err(changed_meanwhile());
        }
        let job = Job { candidate: &candidate, cache: self.cache()?, state: &self.state_dir, limits: &limits };
        let compiled = compile(&job, priority)?;
        drop(place);
        let (_, artifact) = self.cache()?.get(&self.engine, &content)?.ok_or_else(|| {
            LoadError::new(
                LoadErrorReason::Compile,
                "the compiled code is not in the cache: is the disk full, or does somebody delete files of the state directory?",
            )
        })?;
        tracing::info!(
            filter = name,
            digest = &candidate.info.digest[..12],
            ms = began.elapsed().as_millis() as u64,
            functions = compiled.compiled,
            reused = compiled.found,
            sandbox = compiled.sandbox,
            "compiled"
        );
        Ok((content, candidate.info, artifact))
    }

    fn cache(&self) -> Result<&ArtifactCache, LoadError> {
        self.cache.as_ref().map_err(|why| {
            LoadError::new(LoadErrorReason::Compile, format!("there is no folder for compiled code: {why}"))
        })
    }
}

/// The name of an upstream's component among the loaded filters. No filter can have it.
pub fn component_name(upstream: &str) -> String {
    format!("upstream {upstream}")
}
