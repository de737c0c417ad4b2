//! Notices changed files of the configuration, filters and certificates.
//!
//! The folders are watched and not the files, because builds replace files by renaming. An event
//! only says that the files are worth a check.
//!
//! This module does not know: what is done about a change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::config_source::ConfigSource;
use witgate_config::Config;

/// A burst of events ends when there is none for this time, which lets a copy in progress finish.
const QUIET_TIME: Duration = Duration::from_millis(20);
/// The maximum duration of a burst.
const BURST_MAX: Duration = Duration::from_millis(500);

/// Events that wait for the supervisor. More say nothing new.
pub const EVENTS_MAX: usize = 64;

/// An event of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileEvent {
    /// A .wasm file was renamed into place, so it is complete.
    FilterReplaced,
    /// Another change. A file may be incomplete, or a second file may follow.
    Changed,
}

/// Watches folders.
pub struct FileWatcher {
    watcher: notify::RecommendedWatcher,
    folders: Vec<PathBuf>,
}

impl FileWatcher {
    /// Sends an event for each change in a watched folder.
    ///
    /// # Errors
    /// The system provides no watcher.
    pub fn new(events: mpsc::Sender<FileEvent>) -> Result<Self, notify::Error> {
        let watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            // Reading a file causes events too.
            let Some(event) = event.ok().filter(|event| !event.kind.is_access()) else { return };
            let is_renamed =
                matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)));
            let extension = event.paths.last().and_then(|path| path.extension());
            let is_filter = extension.is_some_and(|extension| extension == "wasm");
            // A full channel has events enough for the check that must follow.
            let _ =
                events.try_send(if is_renamed && is_filter { FileEvent::FilterReplaced } else { FileEvent::Changed });
        })?;
        Ok(Self { watcher, folders: vec![] })
    }

    /// Watches the folders of this configuration, and no others.
    pub fn follow(&mut self, source: &ConfigSource, config: &Config) {
        let components = config.components().map(|(_, component)| &component.code);
        let code = config.filters.values().chain(components).filter_map(|code| code.source.path());
        let files = code.chain(config.certificate_files());
        let folders = files.filter_map(Path::parent).map(Path::to_owned);
        let mut folders: Vec<PathBuf> = folders.chain(source.folders()).collect();
        folders.sort();
        folders.dedup();
        for folder in self.folders.iter().filter(|folder| !folders.contains(folder)) {
            // An error means that the folder does not exist any more.
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

/// Waits for the end of a burst of events, or for an event that says that a file is complete.
pub async fn wait_until_quiet(first: FileEvent, events: &mut mpsc::Receiver<FileEvent>) {
    let end = Instant::now() + BURST_MAX;
    let mut event = first;
    while event == FileEvent::Changed {
        match timeout_at(end, timeout(QUIET_TIME, events.recv())).await {
            Ok(Ok(Some(next))) => event = next,
            _ => return,
        }
    }
}
