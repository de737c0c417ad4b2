//! The operator's signals: SIGHUP reloads, SIGUSR1 opens log files again, SIGTERM and SIGINT drain,
//! and a second one exits at once.
//!
//! This module does not know: how to reload or drain.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::flush_log;

/// Signals within this time of the first one belong to it.
const DUPLICATE_TIME: Duration = Duration::from_millis(500);

/// Receives the signals.
pub struct Signals {
    reload: Signal,
    reopen: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    ReopenLogs,
    /// SIGTERM or SIGINT.
    Drain,
}

impl Signals {
    /// Receives the signals from here on. Must be called inside a runtime.
    ///
    /// # Errors
    /// The system refuses a signal handler.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for any of the signals.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.reload.recv() => Request::Reload,
            _ = self.reopen.recv() => Request::ReopenLogs,
            _ = self.terminate.recv() => Request::Drain,
            _ = self.interrupt.recv() => Request::Drain,
        }
    }

    /// Takes the signals that belong to the one that just came.
    pub async fn forget_duplicates(&mut self) {
        let until = tokio::time::Instant::now() + DUPLICATE_TIME;
        while tokio::time::timeout_at(until, self.drain()).await.is_ok() {}
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn drain(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Exits the process at the second SIGTERM or SIGINT.
///
/// ^C sends SIGINT to all processes of the terminal. A parent process (npm, just) often forwards
/// it, so signals within half a second count as the first one.
pub async fn exit_at_second(mut signals: Signals) {
    let began = Instant::now();
    while began.elapsed() < DUPLICATE_TIME {
        signals.drain().await;
    }
    tracing::warn!("a second signal: exiting at once, exchanges in flight are lost");
    flush_log();
    std::process::exit(1);
}
