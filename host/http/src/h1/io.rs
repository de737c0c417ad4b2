//! The byte stream of one HTTP/1 connection with its buffers: reads append to `input`, writes drain
//! `output`.
//!
//! Both sides of the gateway use it, so writing is implemented once. A write that has buffered
//! bytes and a large part sends both with one vectored system call, which saves copying the large
//! part; the price is a second branch in the loop. This module does not know: sockets, TLS, HTTP
//! semantics.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::throughput::Timer;

/// The most bytes that one read appends to the input of a connection. It bounds the memory that the
/// gateway holds for a peer that reads nothing.
pub const READ_BYTES: usize = 16 << 10;

/// A byte stream that can append what has arrived to a buffer.
///
/// Reading is not `AsyncRead`, because the implementation chooses where it reads into: the
/// gateway's stream reads into one buffer per thread, so that idle connections hold no read buffer.
pub trait Io: AsyncWrite + Unpin {
    /// Appends at most [`READ_BYTES`] that have arrived to `buffer` and returns their number; 0
    /// means end of stream.
    fn poll_fill(&mut self, context: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Reads at most `bytes_max` into `buffer`, which is large, without a copy. Returns the number
    /// of bytes; 0 means end of stream.
    fn poll_read_large(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>>;
}

/// A byte stream with its input and output buffers and a timer.
#[derive(Debug)]
pub struct BufferedIo<I> {
    /// The byte stream.
    pub io: I,
    /// Bytes that were read and not yet parsed.
    pub input: BytesMut,
    /// Bytes that are to be written.
    pub output: BytesMut,
    /// Fires when the peer is too slow. One timer serves heads and bodies, because a connection
    /// waits for only one of them at a time.
    pub timer: Timer,
}

impl<I: Io> BufferedIo<I> {
    /// Wraps `io`; `input` holds the bytes that were already read from it.
    pub fn new(io: I, input: BytesMut) -> Self {
        Self { io, input, output: BytesMut::new(), timer: Timer::default() }
    }

    /// Reads once and appends to `input`; returns the number of bytes, 0 at the end of the stream.
    #[inline]
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.io.poll_fill(context, &mut self.input)
    }

    /// Writes `output`, then `more`, then flushes. Adds the number of written bytes to `written`,
    /// also if the result is pending or an error.
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        more: &mut Bytes,
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while !self.output.is_empty() || !more.is_empty() {
            let io = Pin::new(&mut self.io);
            let count = match (self.output.is_empty(), more.is_empty()) {
                (false, true) => io.poll_write(context, &self.output),
                (true, _) => io.poll_write(context, more),
                (false, false) => {
                    io.poll_write_vectored(context, &[io::IoSlice::new(&self.output), io::IoSlice::new(more)])
                }
            };
            let count = ready!(count)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
            let from_output = count.min(self.output.len());
            self.output.advance(from_output);
            more.advance(count - from_output);
        }
        // An empty part of a buffer keeps the buffer in use.
        *more = Bytes::new();
        // TLS accepts more bytes than the socket does and keeps the rest until it is flushed.
        Pin::new(&mut self.io).poll_flush(context)
    }
}
