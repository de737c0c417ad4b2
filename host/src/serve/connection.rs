//! One client connection: which HTTP version it speaks, its deadlines, and its end.
//!
//! The deadlines sit in a wrapper around the socket rather than in timers of each request: one timer for a connection, armed only while the gateway
//! waits for the client, so that a request costs no timer at all. Must not know: what happens to a request (`proxy.rs`).

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};

use super::proxy;
use crate::exchange::Client;
use crate::snapshot::Shared;
use crate::stage::upstream::Pools;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const H2_STREAMS_MAX: u32 = 128;
const H2_HEADER_BYTES_MAX: u32 = 64 << 10;

/// What a connection needs from its thread.
#[derive(Clone)]
pub struct Worker {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// This thread's upstream connections.
    pub pools: Rc<Pools>,
}

/// Serves a connection to its end.
pub async fn serve(worker: Worker, stream: TcpStream, client: Client) {
    let limits = worker.shared.snapshot.load().config.clone();
    let activity = Rc::new(Activity::new());
    let deadlines = Deadlines { head: limits.timeouts.request_head, idle: limits.timeouts.idle };
    let is_h2 = match tokio::time::timeout(deadlines.idle, speaks_h2(&stream)).await {
        Ok(Ok(is_h2)) => is_h2,
        _ => return,
    };
    let io = TokioIo::new(Watched { stream, activity: activity.clone(), deadlines, timer: RefCell::new(None) });
    let client = Arc::new(client);
    let draining = worker.shared.draining.subscribe();
    let service = service_fn(|request| {
        let (worker, client) = (worker.clone(), client.clone());
        let busy = Box::new(activity.begin());
        async move {
            Ok::<_, std::convert::Infallible>(
                proxy::handle(&worker.shared, &worker.pools, &client, request, busy).await,
            )
        }
    });
    let ended = if is_h2 {
        let mut builder = http2::Builder::new(Local);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS_MAX)
            .max_header_list_size(H2_HEADER_BYTES_MAX);
        until_drained(builder.serve_connection(io, service), draining, |connection| connection.graceful_shutdown())
            .await
    } else {
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None).max_buf_size(limits.limits.request_head_bytes);
        until_drained(builder.serve_connection(io, service), draining, |connection| connection.graceful_shutdown())
            .await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, client = %client.address, "a client's connection ended");
    }
}

/// Whether the client begins with HTTP/2's preface (RFC 9113, section 3.4), without taking a byte.
async fn speaks_h2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; H2_PREFACE.len()];
    loop {
        let length = stream.peek(&mut start).await?;
        if length == 0 || !H2_PREFACE.starts_with(&start[..length]) {
            return Ok(false);
        }
        if length == H2_PREFACE.len() {
            return Ok(true);
        }
        // A preface in pieces: peeking again at once would spin.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Drives a connection; when a drain begins, lets it finish what it is doing and no more.
async fn until_drained<C: Future>(
    connection: C,
    mut draining: tokio::sync::watch::Receiver<bool>,
    shut_down: impl FnOnce(Pin<&mut C>),
) -> C::Output {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        output = &mut connection => return output,
        _ = draining.wait_for(|draining| *draining) => shut_down(connection.as_mut()),
    }
    connection.await
}

/// Runs hyper's own tasks on this thread.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// What the connection is doing, for its deadlines.
struct Activity {
    /// Exchanges that are not finished.
    exchanges: Cell<usize>,
    /// When the last one ended, or the connection began.
    idle_since: Cell<Instant>,
    /// When the first byte of a head arrived.
    head_since: Cell<Option<Instant>>,
}

impl Activity {
    fn new() -> Self {
        Self { exchanges: Cell::new(0), idle_since: Cell::new(Instant::now()), head_since: Cell::new(None) }
    }

    fn begin(self: &Rc<Self>) -> Busy {
        self.exchanges.set(self.exchanges.get() + 1);
        self.head_since.set(None);
        Busy(self.clone())
    }
}

/// Keeps a connection from being idle.
struct Busy(Rc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.exchanges.set(self.0.exchanges.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

#[derive(Clone, Copy)]
struct Deadlines {
    head: Duration,
    idle: Duration,
}

/// A socket that gives up on a client that lets the gateway wait.
struct Watched {
    stream: TcpStream,
    activity: Rc<Activity>,
    deadlines: Deadlines,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Watched {
    /// When waiting for the client ends; none while an exchange is going on.
    fn deadline(&self) -> Option<Instant> {
        if self.activity.exchanges.get() > 0 {
            return None;
        }
        Some(match self.activity.head_since.get() {
            Some(since) => since + self.deadlines.head,
            None => self.activity.idle_since.get() + self.deadlines.idle,
        })
    }

    /// Ready when the client has been waited for too long. The timer is armed once and set anew only when it fires.
    fn poll_overdue(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.borrow_mut();
        loop {
            // While an exchange goes on, look again after the shorter deadline.
            let now = Instant::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(());
            }
            let at = deadline.unwrap_or(now + self.deadlines.head.min(self.deadlines.idle)).into();
            let armed = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if armed.deadline() > at {
                armed.as_mut().reset(at);
            }
            ready!(armed.as_mut().poll(context));
            *timer = None;
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                let activity = &self.activity;
                if buffer.filled().len() > before
                    && activity.exchanges.get() == 0
                    && activity.head_since.get().is_none()
                {
                    activity.head_since.set(Some(Instant::now()));
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.poll_overdue(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client let the gateway wait")))
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
