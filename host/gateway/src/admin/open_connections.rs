//! The open connections of the admin listener: a bounded number, of which none can hold up others.
//!
//! A reader that takes no byte of its response for some time is closed. While all connections are
//! in use, a new one replaces the one that has read and written nothing for the longest time, so
//! that health checks get through. Readers of `/tap` are exempt: there are few, and they may be
//! slow. This module does not know: requests.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep};

use crate::net::Stream;

/// How long a client may accept no byte of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 64;

/// The open connections.
pub(super) struct OpenConnections {
    began: Instant,
    open: Vec<(Arc<Progress>, AbortHandle)>,
    tasks: JoinSet<()>,
}

/// What a connection has done.
#[derive(Default)]
pub(super) struct Progress {
    began: Option<Instant>,
    /// When it last read or wrote a byte, in milliseconds.
    moved_ms: AtomicU64,
    is_exempt: AtomicBool,
}

impl OpenConnections {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), open: vec![], tasks: JoinSet::new() }
    }

    /// Serves a new connection with a task that `serve` makes.
    pub(super) fn serve<F>(&mut self, serve: impl FnOnce(Arc<Progress>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() >= CONNECTIONS_MAX {
            let candidates =
                self.open.iter().enumerate().filter(|(_, (progress, _))| !progress.is_exempt.load(Relaxed));
            if let Some((at, _)) = candidates.min_by_key(|(_, (progress, _))| progress.moved_ms.load(Relaxed)) {
                self.open.swap_remove(at).1.abort();
            }
        }
        let progress = Arc::new(Progress { began: Some(self.began), ..Progress::default() });
        progress.note();
        let task = self.tasks.spawn(serve(progress.clone()));
        self.open.push((progress, task));
    }

    /// The tasks of all of them, to wait for their end.
    pub(super) fn take_tasks(&mut self) -> JoinSet<()> {
        std::mem::take(&mut self.tasks)
    }
}

impl Progress {
    fn note(&self) {
        let ms = self.began.map_or(0, |began| began.elapsed().as_millis() as u64);
        self.moved_ms.store(ms, Relaxed);
    }

    /// The connection may be slow from here on.
    pub(super) fn exempt(&self) {
        self.is_exempt.store(true, Relaxed);
    }
}

/// A connection that notes its progress.
pub(super) struct Watched {
    io: Stream,
    progress: Arc<Progress>,
    /// When a write that waits must have gone on.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(super) fn new(io: Stream, progress: Arc<Progress>) -> Self {
        Self { io, progress, deadline: None }
    }

    fn poll_written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() || self.progress.is_exempt.load(Relaxed) {
            self.deadline = None;
            self.progress.note();
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read the response")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        if read.is_ready() {
            this.progress.note();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        this.poll_written(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(context, slices);
        this.poll_written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}
