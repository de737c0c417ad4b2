//! The byte stream of one HTTP/1 connection with its buffers: reads append to `input`, writes drain
//! `output`.
//!
//! Both sides of the gateway use it, so writing is implemented once. A write that has buffered
//! bytes and a long part sends both with one vectored system call, which saves copying the long
//! part; the price is a second branch in the loop. This module does not know: sockets, TLS, HTTP
//! semantics.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::pipe::Pipe;
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

    /// Whether the stream's bytes are those of a socket, so that a pipe can move them. The two
    /// methods below are called only then.
    fn has_plain_socket(&self) -> bool {
        false
    }

    /// Moves at most `bytes_max` into `pipe`, which is empty. Returns the number of bytes; 0 means
    /// end of stream.
    fn poll_fill_pipe(
        &mut self,
        _context: &mut Context<'_>,
        _pipe: &mut Pipe,
        _bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Moves bytes of `pipe` to the socket and returns their number.
    fn poll_drain_pipe(&mut self, _context: &mut Context<'_>, _pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// A long part of a body that is sent from where it is, after the output buffer.
#[derive(Debug, Default)]
pub enum LongPart {
    /// Nothing.
    #[default]
    None,
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in a pipe.
    Pipe(Pipe),
}

impl LongPart {
    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Pipe(pipe) => pipe.is_empty(),
        }
    }
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
        more: &mut LongPart,
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while !self.output.is_empty() || !more.is_empty() {
            let count = match (self.output.is_empty(), &mut *more) {
                (true, LongPart::Pipe(pipe)) => self.io.poll_drain_pipe(context, pipe),
                (true, LongPart::Bytes(bytes)) => Pin::new(&mut self.io).poll_write(context, bytes),
                (false, LongPart::Bytes(bytes)) => {
                    let slices = [io::IoSlice::new(&self.output), io::IoSlice::new(bytes)];
                    Pin::new(&mut self.io).poll_write_vectored(context, &slices)
                }
                (_, LongPart::None | LongPart::Pipe(_)) => Pin::new(&mut self.io).poll_write(context, &self.output),
            };
            let count = ready!(count)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
            let from_output = count.min(self.output.len());
            self.output.advance(from_output);
            if let LongPart::Bytes(bytes) = more {
                bytes.advance(count - from_output);
            }
        }
        // An empty part of a buffer keeps the buffer in use, an empty pipe the pipe.
        *more = LongPart::None;
        // TLS accepts more bytes than the socket does and keeps the rest until it is flushed.
        Pin::new(&mut self.io).poll_flush(context)
    }
}
