//! What the operator's signals ask for: SIGHUP a reload, SIGTERM and SIGINT a drain, a second one the end.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a ^C takes to be passed on.
const PASSED_ON: Duration = Duration::from_millis(500);

/// The signals, received from when this was made.
pub struct Signals {
    /// SIGHUP.
    pub reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to receive; inside a runtime.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for SIGHUP (true), or for SIGTERM or SIGINT (false).
    pub async fn reload_or_end(&mut self) -> bool {
        tokio::select! {
            _ = self.reload.recv() => true,
            () = ended(&mut self.terminate, &mut self.interrupt) => false,
        }
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn end(&mut self) {
        ended(&mut self.terminate, &mut self.interrupt).await;
    }
}

async fn ended(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// A second signal means that nobody wants to wait. But ^C comes from the terminal, and at once again, as SIGINT or SIGTERM, from whoever started the gateway (npm, just): that
/// is one.
pub async fn exit_at_second(mut signals: Signals) {
    let began = Instant::now();
    while began.elapsed() < PASSED_ON {
        signals.end().await;
    }
    tracing::warn!("a second signal: leaving at once");
    std::process::exit(1);
}
