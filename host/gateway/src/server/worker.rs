//! What a connection gets from its serving thread and from the configuration.
//!
//! This is a file of its own because both the connection and its protocol need it. This module
//! does not know: sockets, protocols.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::pipeline::exchange::RequestContext;
use crate::pipeline::https::ListenerPolicy;
use crate::pipeline::snapshot::Shared;
use crate::telemetry::Telemetry;
use crate::upstream::UpstreamClient;
use witgate_http::body::InterimSink;
use witgate_http::h1::head::Limits;
use witgate_http::limiter::Limiter;
use witgate_http::throughput::MinRate;
use witgate_runtime::exchange::Client;

/// When a drain begins, a request of an idle client may already be on its way: wait this long for
/// it.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(300);
/// When a drain begins, a connection in its TLS handshake has this long to finish it.
pub(super) const HANDSHAKE_DRAIN_GRACE: Duration = Duration::from_secs(1);
/// A minimum rate applies only after the gateway has waited this long for the client.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// What a connection gets from its serving thread.
#[derive(Clone)]
pub(super) struct Worker {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Where records of exchanges go.
    pub telemetry: Rc<Telemetry>,
    /// This thread's upstream connections.
    pub upstream_client: Rc<UpstreamClient>,
    /// The name of the connection's listener.
    pub listener: Rc<str>,
    /// The settings of the connection's listener.
    pub policy: Rc<ListenerPolicy>,
    /// Exchanges of the connection's client. None if they are not limited: the peer is a trusted
    /// proxy.
    pub client_in_flight: Option<Limiter>,
}

/// The settings of a connection. It reads them once, when it begins.
#[derive(Clone, Copy)]
pub(super) struct ConnectionSettings {
    pub(super) head: Limits,
    /// Concurrent requests over HTTP/2.
    pub(super) streams: u32,
    /// How fast the client must send a request's body.
    pub(super) receive: MinRate,
    /// How fast the client must accept a response.
    pub(super) send: MinRate,
    pub(super) timeouts: ConnectionTimeouts,
}

/// How long the gateway waits for a client.
#[derive(Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// For a whole request head, from its first byte.
    pub(super) head: Duration,
    /// For the next request.
    pub(super) idle: Duration,
    /// For the next byte in a tunnel, in either direction.
    pub(super) tunnel: Duration,
}

impl ConnectionTimeouts {
    /// For the first byte of a new connection, which costs its client nothing to open.
    pub(super) fn first_byte(&self) -> Duration {
        self.head.min(self.idle)
    }
}

impl Worker {
    /// The context of a request of `client`.
    pub(super) fn context<'a>(&'a self, client: &'a Arc<Client>, interim: Option<InterimSink>) -> RequestContext<'a> {
        let Self { shared, telemetry, upstream_client, listener, policy, client_in_flight } = self;
        let client_in_flight = client_in_flight.as_ref();
        RequestContext { shared, telemetry, upstream_client, listener, policy, peer: client, client_in_flight, interim }
    }

    pub(super) fn settings(&self) -> ConnectionSettings {
        let snapshot = self.shared.snapshot.load();
        let (timeouts, limits) = (&snapshot.config.timeouts, &snapshot.config.limits);
        let min_rate = |stall: Duration| MinRate {
            stall,
            bytes_per_second: limits.min_bytes_per_second,
            grace: RATE_GRACE.min(stall),
        };
        ConnectionSettings {
            head: Limits {
                head_bytes: limits.request_head_bytes,
                target_bytes: limits.request_head_bytes / 2,
                fields: limits.request_fields,
            },
            streams: limits.streams,
            receive: min_rate(timeouts.request_body),
            send: min_rate(timeouts.send),
            timeouts: ConnectionTimeouts {
                head: timeouts.request_head,
                idle: timeouts.idle,
                tunnel: timeouts.tunnel_idle,
            },
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.shared.draining.borrow()
    }

    /// Waits until the gateway drains.
    pub(super) async fn drained(&self) {
        // An error means that the gateway has ended.
        let _ = self.shared.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Waits until the gateway has drained for `grace`.
    pub(super) async fn drained_for(&self, grace: Duration) {
        self.drained().await;
        tokio::time::sleep(grace).await;
    }
}
