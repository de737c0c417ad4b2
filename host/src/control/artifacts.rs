//! From a .wasm file to a filter ready to run: read, check, compile or take from the cache, link.
//!
//! The cache holds machine code, so a file in it is only ever used after its keyed hash was checked, the key lies beside it readable for this user alone,
//! and a folder that others may write to is not used at all. Compiling happens here, on a thread that serves nobody. Must not know: requests, listeners.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Instant, SystemTime};

use super::state::private_folder;
use crate::config::{self, Capability};
use crate::keyvalue::Store;
use crate::wasm::component::{self, Description, FILE_BYTES_MAX, LoadError};
use crate::wasm::engine::{Artifact, Engine};
use crate::wasm::pool::{Filter, Grant, Terms, check_imports};

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// Cached artifacts above this are deleted, the longest unused first.
const CACHE_BYTES_MAX: u64 = 2 << 30;

/// Loads filters and remembers what it loaded.
pub struct Loader {
    engine: Engine,
    cache: Option<Cache>,
    instances: Arc<AtomicI64>,
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
    description: Description,
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
    /// A loader with its cache in `state`; without one, if that folder cannot be trusted, with a warning.
    pub fn new(engine: Engine, state: &Path, instances: Arc<AtomicI64>) -> Self {
        let cache = match Cache::open(&state.join("artifacts"), &engine) {
            Ok(cache) => Some(cache),
            Err(why) => {
                tracing::warn!(folder = %state.display(), why, "compiled filters are not cached: every start compiles them anew");
                None
            }
        };
        Self { engine, cache, instances, stores: HashMap::new(), known: HashMap::new(), refused: HashMap::new() }
    }

    /// Loads one filter. Quick where its file has not changed since the last time.
    pub fn load(&mut self, name: &str, filter: &config::Filter) -> Result<Filter, LoadError> {
        let stamp = stamp(&filter.source)?;
        let loaded = self.load_as(name, filter, stamp);
        match &loaded {
            Ok(_) => self.refused.remove(name),
            Err(_) => self.refused.insert(name.to_owned(), stamp),
        };
        loaded
    }

    /// Whether the file of a filter changed since it was last loaded or refused. A file that is gone has not changed: the version in memory serves on.
    pub fn has_changed(&self, name: &str, filter: &config::Filter) -> bool {
        let Ok(stamp) = stamp(&filter.source) else { return false };
        let loaded = self.known.get(name).is_some_and(|known| known.stamp == stamp);
        !loaded && self.refused.get(name) != Some(&stamp)
    }

    /// Forgets filters that are no longer configured.
    pub fn retain(&mut self, config: &config::Config) {
        self.known.retain(|name, _| config.filters.contains_key(name));
        self.refused.retain(|name, _| config.filters.contains_key(name));
        self.stores.retain(|name, _| config.filters.contains_key(name));
    }

    fn load_as(&mut self, name: &str, filter: &config::Filter, stamp: Stamp) -> Result<Filter, LoadError> {
        let terms = self.terms(name, filter);
        let known = self.known.get(name).filter(|known| known.stamp == stamp && known.source == filter.source);
        if let Some(known) = known {
            check_pins(&known.description, filter)?;
            check_imports(&known.description, &terms)?;
            return Filter::new(&self.engine, &known.artifact, known.description.clone(), terms);
        }
        let bytes = read(&filter.source, stamp)?;
        let description = component::describe(&bytes)?;
        check_pins(&description, filter)?;
        check_imports(&description, &terms)?;
        let artifact = self.artifact(name, &description, &bytes)?;
        let ready = Filter::new(&self.engine, &artifact, description.clone(), terms)?;
        self.known.insert(name.to_owned(), Known { source: filter.source.clone(), stamp, description, artifact });
        Ok(ready)
    }

    fn artifact(&self, name: &str, description: &Description, bytes: &[u8]) -> Result<Artifact, LoadError> {
        let began = Instant::now();
        if let Some(same) = self.known.values().find(|known| known.description.digest == description.digest) {
            return Ok(same.artifact.clone());
        }
        if let Some(artifact) = self.cache.as_ref().and_then(|cache| cache.get(&self.engine, &description.digest)) {
            tracing::info!(
                filter = name,
                digest = &description.digest[..12],
                ms = began.elapsed().as_millis() as u64,
                "taken from the cache"
            );
            return Ok(artifact);
        }
        let artifact = self.engine.compile(bytes).map_err(|error| {
            // Valid, but its memories or tables fit no slot: wasmtime has no type for that.
            if error.contains("pooling allocator") {
                return LoadError::new(
                    "limits",
                    format!("the component wants more than an instance may have: {error}"),
                );
            }
            LoadError::new(
                "compile",
                format!("the component is not valid: {error}; build it anew with `componentize build`"),
            )
        })?;
        tracing::info!(
            filter = name,
            digest = &description.digest[..12],
            ms = began.elapsed().as_millis() as u64,
            "compiled"
        );
        if let Some(cache) = &self.cache
            && let Err(why) = cache.put(&artifact, &description.digest)
        {
            tracing::warn!(filter = name, why, "the compiled filter cannot be cached");
        }
        Ok(artifact)
    }

    fn terms(&mut self, name: &str, filter: &config::Filter) -> Terms {
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
        terms(name, filter, store, self.instances.clone())
    }
}

/// Checks a filter's file as loading would, up to but without compiling.
pub fn check_file(name: &str, filter: &config::Filter, live: &Arc<AtomicI64>) -> Result<Description, LoadError> {
    let bytes = read(&filter.source, stamp(&filter.source)?)?;
    let description = component::describe(&bytes)?;
    check_pins(&description, filter)?;
    check_imports(&description, &terms(name, filter, Arc::new(Store::new(1, 1)), live.clone()))?;
    Ok(description)
}

fn terms(name: &str, filter: &config::Filter, store: Arc<Store>, live: Arc<AtomicI64>) -> Terms {
    let grant = |capability: &Capability| match capability {
        Capability::KeyValue => Grant::KeyValue,
        Capability::Wasi => Grant::Wasi,
    };
    Terms {
        name: name.into(),
        timeout: filter.timeout,
        memory_bytes: filter.memory_bytes,
        grants: filter.capabilities.iter().map(grant).collect(),
        store,
        live,
    }
}

fn check_pins(description: &Description, filter: &config::Filter) -> Result<(), LoadError> {
    if let Some(pin) = filter.sha256
        && hex::encode(pin) != description.digest
    {
        return Err(LoadError::new(
            "pin",
            format!("the file's sha256 is {}, but the configuration pins {}", description.digest, hex::encode(pin)),
        ));
    }
    let version = description.manifest.as_ref().map(|manifest| manifest.version.as_str());
    if let Some(pin) = &filter.version
        && version != Some(pin)
    {
        return Err(LoadError::new(
            "pin",
            format!(
                "the component's version is {}, but the configuration pins {pin}",
                version.unwrap_or("not given (no manifest)")
            ),
        ));
    }
    Ok(())
}

fn stamp(path: &Path) -> Result<Stamp, LoadError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    Ok(Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
}

/// Reads a file of bounded size, checking that it was not replaced meanwhile.
fn read(path: &Path, before: Stamp) -> Result<Vec<u8>, LoadError> {
    let too_large =
        || LoadError::new("limits", format!("{} is larger than {} MiB", path.display(), FILE_BYTES_MAX >> 20));
    if before.length > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::with_capacity(before.length as usize);
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large());
    }
    if stamp(path)? != before {
        return Err(LoadError::new(
            "unreadable",
            format!("{} changed while it was read; it will be read again", path.display()),
        ));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> LoadError {
    LoadError::new("unreadable", format!("{}: {error}; build the filter, or correct its `source`", path.display()))
}

/// Compiled artifacts by digest, in a folder of this user's own.
struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    fingerprint: String,
}

impl Cache {
    fn open(folder: &Path, engine: &Engine) -> Result<Self, String> {
        private_folder(folder)?;
        let shown = folder.display();
        let key = read_key(&folder.join("key")).map_err(|error| format!("{shown}/key: {error}"))?;
        let fingerprint = hex::encode(&engine.fingerprint()[..8]);
        Ok(Self { folder: folder.to_owned(), key, fingerprint })
    }

    /// A cached artifact; none where there is none that this gateway wrote, for this very engine.
    fn get(&self, engine: &Engine, digest: &str) -> Option<Artifact> {
        let path = self.path(digest);
        let bytes = fs::read(&path).ok()?;
        let (mac, code) = bytes.split_at_checked(MAC_BYTES)?;
        // blake3's comparison of hashes takes constant time.
        if self.mac(digest, code) != <[u8; MAC_BYTES]>::try_from(mac).ok()? {
            tracing::warn!(file = %path.display(), "a cached artifact was not written by this gateway or is damaged: it is not used");
            return None;
        }
        // SAFETY: the keyed hash says that this gateway's user wrote exactly these bytes for this digest and engine.
        #[allow(unsafe_code)]
        let artifact = unsafe { engine.deserialize(code) };
        match artifact {
            Ok(artifact) => Some(artifact),
            Err(why) => {
                tracing::warn!(file = %path.display(), why, "a cached artifact cannot be used");
                None
            }
        }
    }

    fn put(&self, artifact: &Artifact, digest: &str) -> Result<(), String> {
        let code = artifact.serialize()?;
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)?;
            file.write_all(self.mac(digest, &code).as_bytes())?;
            file.write_all(&code)?;
            file.persist(self.path(digest)).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| error.to_string())?;
        self.prune();
        Ok(())
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.{}.cwasm", self.fingerprint))
    }

    fn mac(&self, digest: &str, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(digest.as_bytes());
        hasher.update(self.fingerprint.as_bytes());
        hasher.update(code);
        hasher.finalize()
    }

    /// Deletes the artifacts that were written longest ago, until the rest fits.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cwasm"))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= CACHE_BYTES_MAX {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                total -= length;
            }
        }
    }
}

/// Reads the key, or makes one: readable for this user alone.
fn read_key(path: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    match File::open(path) {
        Ok(mut file) => {
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                return Err(std::io::Error::other("can be read by others: delete it, a new one is made"));
            }
            file.read_exact(&mut key)?;
            Ok(key)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            getrandom::fill(&mut key).map_err(std::io::Error::other)?;
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Ok(mut file) => {
                    file.write_all(&key)?;
                    Ok(key)
                }
                // Another gateway on the same folder was quicker.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => read_key(path),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_here_is_not_run() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let engine = Engine::new(2).map_err(anyhow::Error::msg)?;
        let cache = Cache::open(folder.path(), &engine).map_err(anyhow::Error::msg)?;
        let artifact = engine.compile(b"\0asm\x0d\0\x01\0").map_err(anyhow::Error::msg)?;
        cache.put(&artifact, "abc").map_err(anyhow::Error::msg)?;
        assert!(cache.get(&engine, "abc").is_some());
        assert!(cache.get(&engine, "abd").is_none());

        let mut bytes = fs::read(cache.path("abc"))?;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(cache.path("abc"), &bytes)?;
        assert!(cache.get(&engine, "abc").is_none(), "one flipped bit is noticed");
        fs::write(cache.path("abc"), b"short")?;
        assert!(cache.get(&engine, "abc").is_none());

        let again = Cache::open(folder.path(), &engine).map_err(anyhow::Error::msg)?;
        assert_eq!(again.key, cache.key, "the key stays");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
        assert!(Cache::open(folder.path(), &engine).is_err(), "a folder that others can write is not trusted");
        Ok(())
    }
}
