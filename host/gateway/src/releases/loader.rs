//! From a .wasm file to a filter ready to run: read, check, take from the cache or compile, link, make an instance to see that one can be made.
//!
//! A file that the cache knows (`cache.rs`) is only hashed. One that it does not is copied where nobody can change it (`sealed.rs`), described and checked against configuration and
//! limits, and only then compiled, in a process of its own (`compile.rs`), into the cache. So the gateway's memory holds a component only while it is compiled, and never a compiler. Must not know: requests, listeners.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::cache::{Cache, Content};
use super::compiler::compile;
use super::sealed::Sealed;
use crate::process::priority::Priority;
use witgate_config::{Capability, CompileLimits, Config};
use witgate_http::error::FilterFailure;
use witgate_runtime::component::{self, ComponentInfo, FILE_BYTES_MAX, SizeLimits};
use witgate_runtime::engine::{Artifact, Engine};
use witgate_runtime::instance;
use witgate_runtime::keyvalue::Store;
use witgate_runtime::load_error::{LoadError, LoadErrorReason};
use witgate_runtime::filter::{Filter, Grant, FilterSettings, check_imports};

/// Loads filters and remembers what it loaded.
pub struct Loader {
    engine: Engine,
    cache: Result<Cache, String>,
    state: PathBuf,
    /// Instead of a state directory that cannot be used.
    _temporary: Option<tempfile::TempDir>,
    limits: CompileLimits,
    priority: Priority,
    stores: HashMap<String, Arc<Store>>,
    /// By the filter's name: two filters may share a file.
    known: HashMap<String, Known>,
    /// Files that were refused, as they were then: not tried again before they change.
    refused: HashMap<String, Stamp>,
}

/// A file as it was when it was last read.
struct Known {
    source: PathBuf,
    stamp: Stamp,
    content: Content,
    description: ComponentInfo,
    artifact: Artifact,
}

/// What tells that a file changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Loader {
    /// A loader with its cache in the configuration's state directory; with a warning in a temporary one, if that folder cannot be trusted.
    pub fn new(engine: Engine, config: &Config) -> Self {
        let fingerprint = engine.fingerprint();
        let mut state = config.state_dir.clone();
        let mut temporary = None;
        let mut cache = Cache::open(&state, &fingerprint);
        if let Err(why) = &cache {
            tracing::warn!(folder = %state.display(), why, "compiled filters are not kept: every start compiles them anew");
            if let Ok(folder) = tempfile::tempdir() {
                state = folder.path().to_owned();
                cache = Cache::open(&state, &fingerprint);
                temporary = Some(folder);
            }
        }
        Self {
            engine,
            cache,
            state,
            _temporary: temporary,
            limits: config.compile,
            priority: Priority::Equal,
            stores: HashMap::new(),
            known: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    /// From now on there is traffic that goes first.
    pub fn yield_to_traffic(&mut self) {
        self.priority = Priority::Idle;
    }

    /// From now on compiles under the limits of this configuration.
    pub fn set_limits(&mut self, config: &Config) {
        self.limits = config.compile;
    }

    /// Loads one filter. Quick where its file has not changed since the last time.
    pub fn load(&mut self, name: &str, filter: &witgate_config::Filter) -> Result<Arc<Filter>, LoadError> {
        let stamp = stamp(&filter.source)?;
        let loaded = self.load_as(name, filter, stamp).map(Arc::new).and_then(|ready| {
            check_starts(&ready, &filter.config)?;
            Ok(ready)
        });
        match &loaded {
            Ok(_) => self.refused.remove(name),
            Err(_) => self.refused.insert(name.to_owned(), stamp),
        };
        loaded
    }

    /// Whether the file of a filter changed since it was last loaded or refused. A file that is gone has not changed: the version in memory serves on.
    pub fn has_changed(&self, name: &str, filter: &witgate_config::Filter) -> bool {
        let Ok(stamp) = stamp(&filter.source) else { return false };
        let loaded = self.known.get(name).is_some_and(|known| known.stamp == stamp);
        !loaded && self.refused.get(name) != Some(&stamp)
    }

    /// Forgets filters that are no longer configured.
    pub fn retain(&mut self, config: &Config) {
        self.known.retain(|name, _| config.filters.contains_key(name));
        self.refused.retain(|name, _| config.filters.contains_key(name));
        self.stores.retain(|name, _| config.filters.contains_key(name));
    }

    fn load_as(&mut self, name: &str, filter: &witgate_config::Filter, stamp: Stamp) -> Result<Filter, LoadError> {
        let settings = self.settings(name, filter);
        let known = self.known.get(name).filter(|known| known.stamp == stamp && known.source == filter.source);
        if let Some(known) = known {
            check_pins(&known.description, filter)?;
            check_imports(&known.description, &settings)?;
            return Filter::new(&self.engine, &known.artifact, known.description.clone(), settings);
        }
        let began = Instant::now();
        let content = content(&filter.source, stamp)?;
        let (content, description, artifact) = match self.find(name, &content)? {
            Some((description, artifact)) => {
                check_pins(&description, filter)?;
                check_imports(&description, &settings)?;
                tracing::info!(
                    filter = name,
                    digest = &description.digest[..12],
                    ms = began.elapsed().as_millis() as u64,
                    "taken from the cache"
                );
                (content, description, artifact)
            }
            None => self.compile(name, filter, stamp, &settings)?,
        };
        let ready = Filter::new(&self.engine, &artifact, description.clone(), settings)?;
        artifact.prefault();
        let known = Known { source: filter.source.clone(), stamp, content, description, artifact };
        self.known.insert(name.to_owned(), known);
        Ok(ready)
    }

    /// A component that another filter runs, or that was compiled before.
    fn find(&self, name: &str, content: &Content) -> Result<Option<(ComponentInfo, Artifact)>, LoadError> {
        if let Some(same) = self.known.values().find(|known| known.content == *content) {
            return Ok(Some((same.description.clone(), same.artifact.clone())));
        }
        let found = self.cache()?.get(&self.engine, content);
        Ok(found.unwrap_or_else(|why| {
            tracing::warn!(filter = name, why, "a cached filter cannot be used");
            None
        }))
    }

    fn compile(
        &self,
        name: &str,
        filter: &witgate_config::Filter,
        stamp: Stamp,
        settings: &FilterSettings,
    ) -> Result<(Content, ComponentInfo, Artifact), LoadError> {
        let began = Instant::now();
        let sealed = Sealed::copy(&filter.source, FILE_BYTES_MAX).map_err(|error| unreadable(&filter.source, error))?;
        check_read(&filter.source, stamp, sealed.bytes().len() as u64)?;
        let content = Content::of(sealed.bytes());
        let description = component::describe(sealed.bytes())?;
        check_pins(&description, filter)?;
        check_imports(&description, settings)?;
        let CompileLimits { functions, function_bytes, .. } = self.limits;
        description.check_size(&SizeLimits { functions, function_bytes })?;
        let compiled = compile(&sealed, &self.state, &self.limits, self.priority)?;
        let loaded = self.cache()?.get(&self.engine, &content).map_err(|error| {
            // Valid, but its memories or tables fit no slot: the runtime has no type for that.
            let is_too_large = error.contains("pooling allocator");
            let reason = if is_too_large { LoadErrorReason::Limits } else { LoadErrorReason::Compile };
            LoadError::new(reason, format!("the component wants what an instance may not have: {error}"))
        })?;
        let (_, artifact) = loaded.ok_or_else(|| {
            LoadError::new(LoadErrorReason::Compile, "what was compiled is not in the cache: is the disk full, or does somebody delete files of the state directory?")
        })?;
        tracing::info!(
            filter = name,
            digest = &description.digest[..12],
            ms = began.elapsed().as_millis() as u64,
            functions = compiled.compiled,
            reused = compiled.found,
            "compiled"
        );
        Ok((content, description, artifact))
    }

    fn cache(&self) -> Result<&Cache, LoadError> {
        self.cache.as_ref().map_err(|why| {
            LoadError::new(LoadErrorReason::Compile, format!("there is no folder to compile into: {why}"))
        })
    }

    fn settings(&mut self, name: &str, filter: &witgate_config::Filter) -> FilterSettings {
        // The store outlives the filter's versions. Other bounds make a new one: shrinking a live store would have to choose what to forget.
        let bounds = (filter.keyvalue.keys, filter.keyvalue.bytes);
        let store = match self.stores.get(name) {
            Some(store) if store.bounds() == bounds => store.clone(),
            _ => {
                let store = Arc::new(Store::new(bounds.0, bounds.1));
                self.stores.insert(name.to_owned(), store.clone());
                store
            }
        };
        settings(name, filter, store)
    }
}

/// Checks a filter's file as loading would, up to but without compiling.
pub fn check_file(
    name: &str,
    filter: &witgate_config::Filter,
    limits: &CompileLimits,
) -> Result<ComponentInfo, LoadError> {
    let before = stamp(&filter.source)?;
    let sealed = Sealed::copy(&filter.source, FILE_BYTES_MAX).map_err(|error| unreadable(&filter.source, error))?;
    check_read(&filter.source, before, sealed.bytes().len() as u64)?;
    let description = component::describe(sealed.bytes())?;
    check_pins(&description, filter)?;
    description.check_size(&SizeLimits { functions: limits.functions, function_bytes: limits.function_bytes })?;
    check_imports(&description, &settings(name, filter, Arc::new(Store::new(1, 1))))?;
    Ok(description)
}

fn settings(name: &str, filter: &witgate_config::Filter, store: Arc<Store>) -> FilterSettings {
    let grant = |capability: &Capability| match capability {
        Capability::KeyValue => Grant::KeyValue,
        Capability::Wasi => Grant::Wasi,
    };
    FilterSettings {
        name: name.into(),
        timeout: filter.timeout,
        memory_bytes: filter.memory_bytes,
        reuse: filter.reuse,
        grants: filter.capabilities.iter().map(grant).collect(),
        store,
    }
}

fn check_pins(description: &ComponentInfo, filter: &witgate_config::Filter) -> Result<(), LoadError> {
    if let Some(pin) = filter.sha256
        && hex::encode(pin) != description.digest
    {
        return Err(LoadError::new(
            LoadErrorReason::Pin,
            format!("the file's sha256 is {}, but the configuration pins {}", description.digest, hex::encode(pin)),
        ));
    }
    let version = description.manifest.as_ref().map(|manifest| manifest.version.as_str());
    if let Some(pin) = &filter.version
        && version != Some(pin)
    {
        return Err(LoadError::new(
            LoadErrorReason::Pin,
            format!(
                "the component's version is {}, but the configuration pins {pin}",
                version.unwrap_or("not given (no manifest)")
            ),
        ));
    }
    Ok(())
}

fn stamp(path: &Path) -> Result<Stamp, LoadError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    Ok(Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
}

/// Hashes a file of bounded size.
fn content(path: &Path, before: Stamp) -> Result<Content, LoadError> {
    check_length(path, before.length)?;
    let hashed = File::open(path).and_then(|file| Content::of_file(&file));
    let content = hashed.map_err(|error| unreadable(path, error))?;
    check_read(path, before, before.length)?;
    Ok(content)
}

/// Checks that a file was not too large and not changed while it was read.
fn check_read(path: &Path, before: Stamp, length: u64) -> Result<(), LoadError> {
    check_length(path, length)?;
    if stamp(path)? != before {
        return Err(LoadError::new(
            LoadErrorReason::Unreadable,
            format!("{} changed while it was read; it will be read again", path.display()),
        ));
    }
    Ok(())
}

fn check_length(path: &Path, length: u64) -> Result<(), LoadError> {
    if length <= FILE_BYTES_MAX {
        return Ok(());
    }
    Err(LoadError::new(
        LoadErrorReason::Limits,
        format!("{} is larger than {} MiB", path.display(), FILE_BYTES_MAX >> 20),
    ))
}

/// Refuses what no call could be made of: better now, while the old version serves, than in every request.
fn check_starts(filter: &Arc<Filter>, config: &BTreeMap<String, String>) -> Result<(), LoadError> {
    let refuse = |why: String| {
        let name = &filter.settings.name;
        LoadError::new(
            LoadErrorReason::Instantiate,
            format!(
                "an instance of it cannot be made: {why}; a start function must end well within filters.{name}.timeout and filters.{name}.memory"
            ),
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| refuse(format!("no runtime for it: {error}")))?;
    match runtime.block_on(instance::try_instantiate(filter, &Arc::new(config.clone()))) {
        // Traffic has all instances: that says nothing about this one.
        Err(failure) if failure.kind != FilterFailure::Saturated => {
            Err(refuse(format!("{}: {}", failure.kind.label(), failure.detail)))
        }
        _ => Ok(()),
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> LoadError {
    let message = format!("{}: {error}; build the filter, or correct its `source`", path.display());
    LoadError::new(LoadErrorReason::Unreadable, message).with_source(error)
}
