//! One client connection from its first byte: who the client is, which HTTP version it speaks, and its end.
//!
//! Over TLS the version is agreed on by ALPN, HTTP/1.1 where a client takes no part in it. Without TLS it is known by HTTP/2's preface (RFC 9113, section 3.3): what begins otherwise is HTTP/1.1. Must not know: what happens to a
//! request (`proxy.rs`).

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::{handshake, http1, http2};
use crate::exchange::Client;
use crate::http1::head::Limits;
use crate::net::Stream;
use crate::pace::Demand;
use crate::snapshot::Shared;
use crate::stage::tls::ServerTls;
use crate::stage::upstream::Pools;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a client that is idle when the gateway begins to drain gets for a request that is on its way.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(300);
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
}

/// Serves a connection to its end.
pub async fn serve(worker: Worker, stream: TcpStream, mut client: Client, tls: Option<Arc<ServerTls>>) {
    let waits = worker.settings().timeouts;
    let mut input = BytesMut::new();
    let (io, is_h2) = match tls {
        None => {
            let mut io = Stream::Tcp(stream);
            let speaks_h2 = speaks_h2(&mut io, &mut input, waits.head);
            let Ok(is_h2) = tokio::time::timeout(waits.idle, speaks_h2).await else { return };
            (io, is_h2)
        }
        Some(tls) => {
            let shaken = handshake::accept(&worker, stream, client.address, &tls, waits.head).await;
            let Some((io, info)) = shaken else { return };
            let is_h2 = info.alpn == Some("h2");
            client.tls = Some(Arc::new(info));
            (io, Some(is_h2))
        }
    };
    let client = Arc::new(client);
    match is_h2 {
        Some(true) => http2::serve(&worker, io, input, &client).await,
        Some(false) => http1::serve(&worker, io, input, &client).await,
        None => {}
    }
}

/// Whether the client begins with HTTP/2's preface; none where it left. What was read is in `input`.
async fn speaks_h2(io: &mut Stream, input: &mut BytesMut, head: Duration) -> Option<bool> {
    loop {
        if !input.is_empty() && !H2_PREFACE.starts_with(&input[..input.len().min(H2_PREFACE.len())]) {
            return Some(false);
        }
        if input.len() >= H2_PREFACE.len() {
            return Some(true);
        }
        let begun = !input.is_empty();
        let filling = poll_fn(|context| io.poll_fill(context, input));
        let filled = if begun { tokio::time::timeout(head, filling).await.ok()? } else { filling.await };
        if filled.ok()? == 0 {
            return None;
        }
    }
}
