//! Filters from servers: checked for new versions, kept on disk, loaded from there.
//!
//! A thread fetches, and nothing else waits for a server: a new version is complete in the
//! [`mirror`](mirror) before the loader hears of it. So a slow or absent server delays neither
//! another filter nor a start whose version is on disk. Each location has a task of its own
//! ([`poll`](poll)); [`http`](http), [`bucket`](bucket) and [`oci`](oci) speak to the servers.
//! [`bucket_page`](bucket_page) is an object that gateways write.
//!
//! This module does not know: what is done with a component, whether it is trusted.

mod bucket;
mod bucket_http;
mod bucket_page;
mod check;
mod download;
mod fetch_error;
mod http;
mod mirror;
mod oci;
mod poll;
pub mod publish;
mod redirects;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

pub use self::bucket_page::BucketPage;
pub use self::poll::Status;
pub use self::source::MirroredSource;

use self::mirror::Mirror;
use self::poll::Tracked;
use witgate_config::{Filter, RemoteLocation};

/// What a caller waits beyond the timeout of a check, which the check itself observes.
const WAIT_MARGIN: Duration = Duration::from_secs(5);

/// The locations of a configuration.
pub struct RemoteSources {
    mirror: Result<Arc<Mirror>, String>,
    /// By location.
    tracked: Mutex<BTreeMap<String, Arc<Tracked>>>,
    /// Of the thread that fetches. It starts with the first location.
    runtime: OnceLock<Result<Handle, String>>,
    changed: watch::Sender<()>,
}

impl RemoteSources {
    /// Keeps what it fetches in a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            mirror: Mirror::open(state_dir).map(Arc::new),
            tracked: Mutex::default(),
            runtime: OnceLock::new(),
            changed: watch::channel(()).0,
        }
    }

    /// Begins to check the locations of these filters, with their settings. Waits for those whose
    /// version on disk is missing or does not have the pinned digest or version, for all of them
    /// together.
    pub fn follow<'a>(&self, filters: impl Iterator<Item = &'a Filter>) {
        let mut awaited = vec![];
        for filter in filters {
            let Some(location) = filter.source.remote() else { continue };
            let tracked = self.track(location, filter);
            if let Some(tracked) = tracked.filter(|tracked| !tracked.satisfies(filter)) {
                let checks = tracked.checks();
                tracked.check_now();
                awaited.push((tracked, checks, filter.source_settings.timeout + WAIT_MARGIN));
            }
        }
        for (tracked, checks, limit) in awaited {
            tracked.wait_checked(checks, limit);
        }
    }

    /// Stops the checks of all other locations, and deletes what is not needed any more.
    pub fn retain<'a>(&self, filters: impl Iterator<Item = &'a Filter>) {
        let kept: Vec<&str> = filters.filter_map(|filter| Some(filter.source.remote()?.text.as_str())).collect();
        let mut tracked = self.lock();
        tracked.retain(|location, one| {
            let is_kept = kept.contains(&location.as_str());
            if !is_kept {
                one.stop();
            }
            is_kept
        });
        if let Ok(mirror) = &self.mirror {
            mirror.prune(&kept);
        }
    }

    /// Checks every location now.
    pub fn check_now(&self) {
        self.lock().values().for_each(|tracked| tracked.check_now());
    }

    /// Changes when a location has a new version.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The state of a location, if it is checked.
    pub fn status(&self, location: &RemoteLocation) -> Option<Status> {
        self.lock().get(&location.text).map(|tracked| tracked.status())
    }

    /// The version that was fetched last.
    pub fn latest(&self, location: &RemoteLocation) -> MirroredSource {
        let tracked = self.lock().get(&location.text).cloned();
        MirroredSource::latest(location, tracked, self.mirror.clone())
    }

    /// The version that was loaded last, if it is another one.
    pub fn last_good(&self, location: &RemoteLocation) -> Option<MirroredSource> {
        let tracked = self.lock().get(&location.text).cloned()?;
        MirroredSource::last_good(location, tracked, self.mirror.clone())
    }

    fn track(&self, location: &RemoteLocation, filter: &Filter) -> Option<Arc<Tracked>> {
        let mirror = self.mirror.as_ref().ok()?;
        let mut all = self.lock();
        if let Some(tracked) = all.get(&location.text) {
            tracked.set_settings(&filter.source_settings);
            return Some(tracked.clone());
        }
        let handle = self.runtime.get_or_init(start_thread).as_ref().ok()?;
        let settings = filter.source_settings.clone();
        let tracked = Arc::new(Tracked::new(location.clone(), settings, mirror.read(&location.text)));
        all.insert(location.text.clone(), tracked.clone());
        drop(all);
        handle.spawn(poll::run(tracked.clone(), mirror.clone(), self.changed.clone()));
        Some(tracked)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Tracked>>> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that fetches, and returns what starts tasks on it.
fn start_thread() -> Result<Handle, String> {
    let fail = |error: std::io::Error| format!("the thread for sources cannot be started: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("sources".into()).spawn(run).map_err(fail)?;
    Ok(handle)
}
