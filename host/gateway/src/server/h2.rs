//! HTTP/2 to clients: one task for the connection, and one for each stream (`h2/stream.rs`).
//!
//! The `h2` crate is used directly, because interim responses, resets and extended CONNECT
//! (RFC 8441) are not available through a layer above it. The task of the connection drives the
//! socket and starts streams. It closes the connection if the client is idle, owes the rest of a
//! frame for too long, or floods. This module does not know: what happens to a request.

mod stream;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::server::Connection;

use super::flood::{FrameLimiter, FrameStats};
use super::idle_connections::ThreadConnection;
use super::worker::{ConnectionTimeouts, DRAIN_GRACE, Worker};
use crate::net::Stream;
use stream::serve_stream;
use witgate_http::throughput::Timer;
use witgate_runtime::exchange::Client;

const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// How many bytes of a stream's response the `h2` crate buffers until the client accepts them.
const SEND_BUFFER_BYTES: usize = 16 << 10;
/// To send the last GOAWAY.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves a connection to its end. `input` has been read from `io`.
pub(super) async fn serve(
    worker: &Worker,
    state: &Rc<ThreadConnection>,
    io: Stream,
    input: BytesMut,
    client: &Arc<Client>,
) {
    let settings = worker.settings();
    let (io, stats) = FrameLimiter::new(io, input, settings.send);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(settings.streams)
        .max_header_list_size(u32::try_from(settings.head.head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .enable_connect_protocol();
    let handshake = tokio::time::timeout(settings.timeouts.head, builder.handshake::<_, Bytes>(io.clone()));
    let Ok(Ok(mut connection)) = handshake.await else { return };
    io.set_batching(true);
    let streams = OpenStreams::new(state.clone());
    let shared = Rc::new((worker.clone(), client.clone(), settings, stats.clone()));
    let mut timer = Timer::default();
    let mut drain = pin!(worker.drained());
    let mut drained_at = None;
    poll_fn(|context| {
        while let Poll::Ready(accepted) = connection.poll_accept(context) {
            match accepted {
                Some(Ok((request, respond))) => {
                    // Streams that linger are closed on both sides for the `h2` crate, so only
                    // this count bounds them.
                    let (open, max) = (streams.open(), settings.streams as usize);
                    let may_linger = move || open.0.count() <= max;
                    // The task is this future and nothing around it: a second one would hold it
                    // twice and copy it, which is several KiB for each request.
                    tokio::task::spawn_local(serve_stream(shared.clone(), request, respond, may_linger));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, client = %client.address, "an HTTP/2 connection ended with an error");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
        if stats.borrow().is_flooded {
            return Poll::Ready(());
        }
        if let Poll::Ready(Err(error)) = io.poll_send(context) {
            tracing::debug!(%error, client = %client.address, "an HTTP/2 connection cannot be written to");
            return Poll::Ready(());
        }
        if drained_at.is_none() && drain.as_mut().poll(context).is_ready() {
            drained_at = Some(Instant::now());
            connection.graceful_shutdown();
            // Polls the connection again, so that the GOAWAY does not wait for the next frame.
            context.waker().wake_by_ref();
        }
        poll_timeouts(&stats.borrow(), &streams, &settings.timeouts, drained_at, &mut timer, context)
    })
    .await;
    io.set_batching(false);
    let is_flooded = stats.borrow().is_flooded;
    go_away(connection, is_flooded).await;
}

/// Ready if a frame has been incomplete for too long, or if no stream has been open for too long.
fn poll_timeouts(
    stats: &FrameStats,
    streams: &OpenStreams,
    timeouts: &ConnectionTimeouts,
    drained_at: Option<Instant>,
    timer: &mut Timer,
    context: &mut Context<'_>,
) -> Poll<()> {
    let idle = (streams.count() == 0).then(|| {
        let idle = streams.idle_since() + timeouts.idle;
        drained_at.map_or(idle, |drained| idle.min(drained.max(streams.idle_since()) + DRAIN_GRACE))
    });
    let incomplete = stats.incomplete_since().map(|since| since + timeouts.head);
    let deadline = match (idle, incomplete) {
        (Some(idle), Some(incomplete)) => idle.min(incomplete),
        (Some(deadline), None) | (None, Some(deadline)) => deadline,
        // Streams are open and no frame is incomplete. The end of a stream does not wake this
        // task, so it polls again later.
        (None, None) => Instant::now() + timeouts.head.min(timeouts.idle),
    };
    match timer.poll_until(context, deadline) {
        Poll::Ready(()) if idle.is_none() && incomplete.is_none() => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        polled => polled,
    }
}

/// Sends GOAWAY and closes the connection.
async fn go_away(mut connection: Connection<FrameLimiter, Bytes>, is_flooded: bool) {
    connection.abrupt_shutdown(if is_flooded { Reason::ENHANCE_YOUR_CALM } else { Reason::NO_ERROR });
    // The connection is dropped in any case, so the result does not matter.
    let _ = tokio::time::timeout(GOAWAY_TIMEOUT, poll_fn(|context| connection.poll_closed(context))).await;
}

/// Counts the open streams of a connection.
#[derive(Clone)]
struct OpenStreams(Rc<StreamCount>);

struct StreamCount {
    open: Cell<usize>,
    idle_since: Cell<Option<Instant>>,
    connection: Rc<ThreadConnection>,
}

impl OpenStreams {
    fn new(connection: Rc<ThreadConnection>) -> Self {
        Self(Rc::new(StreamCount { open: Cell::new(0), idle_since: Cell::new(None), connection }))
    }

    fn open(&self) -> OpenStream {
        self.0.connection.set_busy();
        self.0.open.set(self.count() + 1);
        OpenStream(self.clone())
    }

    fn count(&self) -> usize {
        self.0.open.get()
    }

    /// When the last stream ended; before the first one, when this function was first called.
    fn idle_since(&self) -> Instant {
        let since = self.0.idle_since.get().unwrap_or_else(Instant::now);
        self.0.idle_since.set(Some(since));
        since
    }
}

/// Counts one stream until it is dropped.
struct OpenStream(OpenStreams);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let StreamCount { open, idle_since, connection } = &*self.0.0;
        let now = Instant::now();
        open.set(open.get() - 1);
        idle_since.set(Some(now));
        if open.get() == 0 {
            connection.set_idle(now);
        }
    }
}
