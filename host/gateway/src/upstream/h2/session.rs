//! One HTTP/2 connection to an endpoint, and its streams that are in use.
//!
//! The connection runs as a task of its own, because no exchange owns it. The task also drops it
//! when its peer does not acknowledge a PING, which ends all its streams. This module does not
//! know: requests, the pool.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::keep_alive::{Activity, wait_until_dead};
use crate::net::Stream;
use crate::net::write_batch::WriteBatch;
use crate::upstream::connect::TlsConfig;
use crate::upstream::endpoint::ConnectionPermit;
use witgate_config::{Http2Settings, Upstream};
use witgate_http::error::{Error, Kind};
use witgate_http::h2::{SharedCounts, StreamCounts};

const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// A connection to an endpoint.
pub(in crate::upstream) struct Session {
    send: SendRequest<Bytes>,
    pub(in crate::upstream) tls_config: TlsConfig,
    state: Rc<State>,
}

struct State {
    is_open: Cell<bool>,
    /// Its peer answered no PING.
    is_dead: Cell<bool>,
    used: Cell<Instant>,
    activity: Activity,
    /// Counts the fields of the responses. The library drops some of them silently.
    field_counts: SharedCounts,
    /// Notified after each stream that ends, and after the connection's end.
    freed: Rc<Notify>,
}

/// One stream of a connection, until it is dropped.
pub(in crate::upstream) struct StreamSlot {
    pub(super) send: SendRequest<Bytes>,
    is_tls: bool,
    state: Rc<State>,
}

/// A connection that a stream used, to ask how it ended.
pub(in crate::upstream) struct UsedConnection(Rc<State>);

impl Session {
    /// Begins a stream, if the connection takes one more.
    pub(in crate::upstream) fn begin_stream(&self) -> Option<StreamSlot> {
        let State { activity, .. } = &*self.state;
        if !self.takes_streams() || activity.is_suspect() || activity.streams() >= self.send.current_max_send_streams()
        {
            return None;
        }
        activity.begin_stream();
        self.state.used.set(Instant::now());
        let (is_tls, state) = (self.tls_config.is_some(), self.state.clone());
        Some(StreamSlot { send: self.send.clone(), is_tls, state })
    }

    /// Whether the connection takes streams once it has a free one. After a GOAWAY it does not.
    pub(in crate::upstream) fn takes_streams(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        // A clone that has sent nothing is ready at once or fails.
        self.state.is_open.get() && !matches!(self.send.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    /// Whether a request timed out, and nothing was heard since.
    pub(super) fn is_suspect(&self) -> bool {
        self.state.activity.is_suspect()
    }

    /// Whether it is open, and either in use or idle for less than `idle`.
    pub(in crate::upstream) fn is_kept(&self, idle: Duration) -> bool {
        let State { is_open, activity, used, .. } = &*self.state;
        is_open.get() && (activity.streams() > 0 || used.get().elapsed() < idle)
    }

    /// A request that began at `began` had no response in time.
    pub(in crate::upstream) fn timed_out(&self, began: Instant) {
        self.state.activity.timed_out(began);
    }
}

impl StreamSlot {
    /// The connection, to ask how it ended.
    pub(in crate::upstream) fn connection(&self) -> UsedConnection {
        UsedConnection(self.state.clone())
    }

    pub(super) fn scheme(&self) -> Scheme {
        if self.is_tls { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Counts the fields of the responses on a stream of the connection, which begins.
    pub(super) fn field_counts(&self, stream: h2::StreamId) -> StreamCounts {
        self.state.field_counts.begin(stream.as_u32())
    }

    /// A frame of the response arrived.
    pub(super) fn answered(&self) {
        self.state.activity.answered();
    }
}

impl UsedConnection {
    /// Whether it was closed because its peer answered no PING.
    pub(in crate::upstream) fn was_dead(&self) -> bool {
        self.0.is_dead.get()
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let state = &self.state;
        state.activity.end_stream();
        state.used.set(Instant::now());
        state.freed.notify_one();
    }
}

/// Starts HTTP/2 on a new connection and waits for the peer's SETTINGS, so that a peer that answers
/// nothing gets no request, and the number of its streams is known. That may take
/// `connect_timeout`. `permit` counts the connection
/// while it lives. `freed` is notified when a stream or the connection ends.
pub(in crate::upstream) async fn open(
    io: Stream,
    tls_config: TlsConfig,
    permit: Option<ConnectionPermit>,
    upstream: &Upstream,
    freed: Rc<Notify>,
) -> Result<Session, Error> {
    let state = Rc::new(State {
        is_open: Cell::new(true),
        is_dead: Cell::new(false),
        used: Cell::new(Instant::now()),
        activity: Activity::new(),
        field_counts: SharedCounts::default(),
        freed,
    });
    let io = WatchedIo { io: Rc::new(RefCell::new(WriteBatch::new(io))), state: state.clone() };
    let failed = |why: String| Error::new(Kind::UpstreamProtocol, format!("no HTTP/2: {why}"));
    let late = || Error::new(Kind::UpstreamConnectTimeout, "no HTTP/2: its SETTINGS frame did not arrive in time");
    let until = Instant::now() + upstream.connect_timeout;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(upstream.response_head_bytes).unwrap_or(u32::MAX))
        .enable_push(false);
    let handshake = timeout_at(until, builder.handshake(io.clone())).await;
    let (send, mut connection) = handshake.map_err(|_| late())?.map_err(|error| failed(error.to_string()))?;
    let settings_arrived = poll_fn(|context| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(Err(ended.err().map_or_else(|| "it closed".to_owned(), |error| error.to_string())));
        }
        // The first frame of a server is SETTINGS (RFC 9113, section 3.4).
        if state.activity.has_heard() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    timeout_at(until, settings_arrived).await.map_err(|_| late())?.map_err(failed)?;
    let (task_state, settings) = (state.clone(), upstream.http2.clone());
    tokio::task::spawn_local(async move {
        let _counted = permit;
        drive(connection, &io, &settings).await;
        task_state.is_open.set(false);
        task_state.freed.notify_waiters();
    });
    Ok(Session { send, tls_config, state })
}

/// Runs the connection until it ends or its peer does not acknowledge a PING.
async fn drive(mut connection: h2::client::Connection<WatchedIo, Bytes>, io: &WatchedIo, settings: &Http2Settings) {
    let Some(ping_pong) = connection.ping_pong() else { return };
    let mut dead = pin!(wait_until_dead(ping_pong, &io.state.activity, settings));
    io.io.borrow_mut().is_batching = true;
    let running = poll_fn(|context| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(ended.map_err(|error| error.to_string()));
        }
        match io.io.borrow_mut().poll_send(context, &mut |_| {}) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.to_string())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    });
    tokio::select! {
        biased;
        result = running => {
            if let Err(error) = result {
                tracing::debug!(error, "an HTTP/2 connection to an upstream ended");
            }
        }
        // Dropping the connection ends its streams with an error that may be retried.
        () = &mut dead => {
            io.state.is_dead.set(true);
            tracing::info!("an upstream did not acknowledge a PING: its HTTP/2 connection is closed");
        }
    }
}

/// Notes when bytes arrive, and gathers the frames that are sent. Clones share the connection.
#[derive(Clone)]
struct WatchedIo {
    io: Rc<RefCell<WriteBatch<Stream>>>,
    state: Rc<State>,
}

impl AsyncRead for WatchedIo {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io.borrow_mut().io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.state.activity.heard();
            self.state.field_counts.received(&buffer.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io.borrow_mut().poll_write(context, slices, &mut |_| {})
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.borrow_mut().poll_flush(context, &mut |_| {})
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self.io.borrow_mut();
        ready!(io.poll_send(context, &mut |_| {}))?;
        Pin::new(&mut io.io).poll_shutdown(context)
    }
}
