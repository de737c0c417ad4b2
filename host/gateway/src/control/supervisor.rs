//! Waits for reasons to reload and reloads, until the gateway must drain.
//!
//! This module does not know: what a reload does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::config_source::ConfigSource;
use super::file_watcher::{EVENTS_MAX, FileEvent, FileWatcher, wait_until_quiet};
use super::reload::Reloader;
use super::reload_jobs::Trigger;
use super::rollout::judge_releases;
use super::share::share_releases;
use super::signals::{Request, Signals};
use super::systemd::notify;
use super::takeover::wait_taken_over;
use crate::pipeline::snapshot::Shared;

/// Reloads by interval if none is configured: practically never.
const INTERVAL_NEVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The reasons to reload or drain, received from the time this value is made.
pub struct Supervisor {
    shared: Arc<Shared>,
    reloader: Arc<Reloader>,
    source: ConfigSource,
    watcher: Option<FileWatcher>,
    events: mpsc::Receiver<FileEvent>,
}

impl Supervisor {
    /// Watches the files of the current state, if the configuration asks for it.
    pub fn new(shared: Arc<Shared>, reloader: Reloader, source: ConfigSource) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let watcher = watch_files(&shared, &source, sender);
        Self { shared, reloader: Arc::new(reloader), source, watcher, events }
    }

    /// Reloads until SIGTERM, SIGINT or a takeover. It never waits for a file or a compilation,
    /// because a signal to drain and the next change must not wait for them either.
    pub async fn run(mut self, signals: &mut Signals, taken_over: &mut watch::Receiver<bool>) {
        // Both end when the gateway drains.
        tokio::task::spawn(judge_releases(self.shared.clone()));
        tokio::task::spawn(share_releases(self.shared.clone(), self.reloader.clone()));
        let mut swapped = self.shared.swapped.subscribe();
        let mut new_versions = self.reloader.new_versions();
        let mut reloads_by_signal = false;
        loop {
            let config = self.shared.snapshot.load().config.clone();
            if let Some(watcher) = &mut self.watcher {
                watcher.follow(&self.source, &config);
            }
            let trigger = tokio::select! {
                () = wait_taken_over(taken_over) => return,
                request = signals.next() => match request {
                    Request::Reload => Trigger::Signal,
                    Request::ReopenLogs => {
                        self.shared.telemetry.reopen_files();
                        continue;
                    }
                    Request::Drain => return,
                },
                // An error is impossible: `self` keeps the sender.
                _ = swapped.changed() => continue,
                // An error is impossible: the reloader keeps the sender.
                _ = new_versions.changed() => Trigger::Watch,
                () = self.reloader.wait_idle(), if reloads_by_signal => {
                    reloads_by_signal = false;
                    notify("READY=1");
                    continue;
                }
                Some(event) = self.events.recv() => {
                    wait_until_quiet(event, &mut self.events).await;
                    Trigger::Watch
                }
                () = tokio::time::sleep(config.reload.interval.unwrap_or(INTERVAL_NEVER)) => Trigger::Interval,
            };
            if trigger == Trigger::Signal {
                notify("RELOADING=1");
                reloads_by_signal = true;
            }
            self.reloader.reload_changed(trigger);
        }
    }
}

fn watch_files(shared: &Shared, source: &ConfigSource, events: mpsc::Sender<FileEvent>) -> Option<FileWatcher> {
    let config = shared.snapshot.load().config.clone();
    if !config.reload.watch {
        return None;
    }
    match FileWatcher::new(events) {
        Ok(mut watcher) => {
            watcher.follow(source, &config);
            Some(watcher)
        }
        Err(error) => {
            tracing::warn!(%error, "files are not watched: changes are seen at the interval or by SIGHUP");
            None
        }
    }
}
