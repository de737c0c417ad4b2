//! What a connection has from its thread and takes from the configuration.
//!
//! A file of its own, so that connections and protocols need not know each other for it. Must not know: sockets, protocols.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::pipeline::snapshot::Shared;
use crate::upstream::Pools;
use witgate_http::h1::head::Limits;
use witgate_http::throughput::Demand;

/// What a client that is idle when the gateway begins to drain gets for a request that is on its way.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(300);
/// What one gets whose handshake is going on: on its way it is served, silent it is not waited for.
pub(super) const HANDSHAKE_DRAIN_GRACE: Duration = Duration::from_secs(1);
/// Before a minimum rate counts.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// What a connection needs from its thread.
#[derive(Clone)]
pub struct Worker {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// This thread's upstream connections.
    pub pools: Rc<Pools>,
}

/// What a connection takes from the configuration, once.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) head: Limits,
    pub(super) streams: u32,
    /// What a client must send of a body.
    pub(super) receive: Demand,
    /// What it must take of an answer.
    pub(super) send: Demand,
    pub(super) timeouts: Waits,
}

/// How long a client may let the gateway wait.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    /// For a whole head, from its first byte.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// In a tunnel, both ways.
    pub(super) tunnel: Duration,
}

impl Worker {
    pub(super) fn settings(&self) -> Settings {
        let snapshot = self.shared.snapshot.load();
        let (timeouts, limits) = (&snapshot.config.timeouts, &snapshot.config.limits);
        let at_least = |stall: Duration| Demand {
            stall,
            bytes_per_second: limits.min_bytes_per_second,
            grace: RATE_GRACE.min(stall),
        };
        Settings {
            head: Limits {
                head_bytes: limits.request_head_bytes,
                target_bytes: limits.request_head_bytes / 2,
                fields: limits.request_fields,
            },
            streams: limits.streams,
            receive: at_least(timeouts.request_body),
            send: at_least(timeouts.send),
            timeouts: Waits { head: timeouts.request_head, idle: timeouts.idle, tunnel: timeouts.tunnel_idle },
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.shared.draining.borrow()
    }

    /// Ready once the gateway drains.
    pub(super) async fn drained(&self) {
        // An error would mean that the gateway itself is gone.
        let _ = self.shared.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Ready once the gateway has drained for so long.
    pub(super) async fn drained_for(&self, grace: Duration) {
        self.drained().await;
        tokio::time::sleep(grace).await;
    }
}
