//! Sends messages from a thread that may wait for the receiver, and reports the first of several
//! failures.
//!
//! This module does not know: what a message contains, where the thread gets it.

use std::cell::Cell;

use tokio::runtime::Runtime;

use super::client::OtlpClient;
use witgate_config::Otlp;

thread_local! {
    static IS_EXPORTER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread sends to a receiver. What it logs is not exported: each export could cause
/// the next one.
pub(in super::super) fn is_exporter_thread() -> bool {
    IS_EXPORTER.get()
}

/// The connection of one thread to a receiver.
pub(super) struct Exporter {
    runtime: Runtime,
    client: OtlpClient,
    endpoint: String,
    /// What is exported, for the log.
    what: &'static str,
    has_failed: bool,
}

impl Exporter {
    /// # Errors
    /// The text says what cannot be started.
    pub(super) fn new(otlp: &Otlp, what: &'static str) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("its runtime cannot be created: {error}"))?;
        let client = runtime.block_on(async { OtlpClient::new(otlp) })?;
        Ok(Self { runtime, client, endpoint: otlp.endpoint.clone(), what, has_failed: false })
    }

    /// Sends one message and waits for the answer: how many of its items the receiver rejected, or
    /// `None` if it accepted nothing.
    pub(super) fn send(&mut self, send: impl AsyncFnOnce(&OtlpClient) -> Result<u64, String>) -> Option<u64> {
        IS_EXPORTER.set(true);
        let (endpoint, what) = (&self.endpoint, self.what);
        match self.runtime.block_on(send(&self.client)) {
            Ok(rejected) => {
                if std::mem::take(&mut self.has_failed) {
                    tracing::info!(endpoint, "{what} can be exported again");
                }
                Some(rejected)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!(endpoint, error, "{what} cannot be exported: what was sent is lost and counted");
                }
                None
            }
        }
    }
}
