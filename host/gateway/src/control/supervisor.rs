//! Waits for reasons to reload and reloads, until the gateway must drain.
//!
//! This module does not know: what a reload does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::config_source::ConfigSource;
use super::file_watcher::{FileEvent, FileWatcher, wait_until_quiet};
use super::reload::{Reloader, Trigger};
use super::signals::{Request, Signals};
use super::systemd::notify;
use super::takeover::wait_taken_over;
use crate::pipeline::snapshot::Shared;
use crate::process::priority::shorten_time_slice;

/// Reloads by interval if none is configured: practically never.
const INTERVAL_NEVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The reasons to reload or drain, received from the time this value is made.
pub struct Supervisor {
    shared: Arc<Shared>,
    reloader: Arc<Mutex<Reloader>>,
    source: ConfigSource,
    watcher: Option<FileWatcher>,
    events: mpsc::UnboundedReceiver<FileEvent>,
}

impl Supervisor {
    /// Watches the files of the current state, if the configuration asks for it.
    pub fn new(shared: Arc<Shared>, reloader: Reloader, source: ConfigSource) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = watch_files(&shared, &source, sender);
        Self { shared, reloader: Arc::new(Mutex::new(reloader)), source, watcher, events }
    }

    /// Reloads until SIGTERM, SIGINT or a takeover.
    pub async fn run(mut self, signals: &mut Signals, taken_over: &mut watch::Receiver<bool>) {
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
                Some(event) = self.events.recv() => {
                    wait_until_quiet(event, &mut self.events).await;
                    Trigger::Watch
                }
                () = tokio::time::sleep(config.reload.interval.unwrap_or(INTERVAL_NEVER)) => Trigger::Interval,
            };
            if trigger == Trigger::Signal {
                notify("RELOADING=1");
            }
            let reload = self.start_reload(trigger);
            // A compilation may take minutes, and a signal to drain must not wait for it.
            tokio::select! {
                () = wait_taken_over(taken_over) => return,
                () = signals.drain() => return,
                ended = reload => if let Err(error) = ended {
                    tracing::error!(%error, "a reload ended with a panic; the previous state stays in service");
                },
            }
            if trigger == Trigger::Signal {
                notify("READY=1");
            }
        }
    }

    /// Reloads on a thread of its own.
    fn start_reload(&self, trigger: Trigger) -> tokio::task::JoinHandle<()> {
        let reloader = self.reloader.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shorten_time_slice() {
                tracing::debug!(%error, "reloads use the system's time slice");
            }
            reloader.lock().unwrap_or_else(PoisonError::into_inner).reload_changed(trigger);
        })
    }
}

fn watch_files(
    shared: &Shared,
    source: &ConfigSource,
    events: mpsc::UnboundedSender<FileEvent>,
) -> Option<FileWatcher> {
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
