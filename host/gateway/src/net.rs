//! A byte stream to a client or an upstream: TCP, a UNIX socket, or TLS over TCP.
//!
//! It is an enum rather than a trait object, so that reading and writing are direct calls. All
//! connections of a thread read through one shared buffer, so an idle connection holds no read
//! buffer; the price is one copy of the received bytes. Long bodies are read into large buffers
//! without that copy, or moved into a pipe. This module does not know: HTTP messages,
//! configuration.

pub mod listening;
pub mod tls;
pub mod write_batch;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};
use witgate_http::h1::io::{Io, READ_BYTES};
use witgate_http::pipe::Pipe;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A connection to a client or an upstream.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Tcp(TcpStream),
    /// A UNIX socket, without TLS.
    Unix(UnixStream),
    /// TLS with the gateway as the server.
    Server(Box<server::TlsStream<TcpStream>>),
    /// TLS with the gateway as the client.
    Client(Box<client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Appends the bytes that have arrived to `buffer` and returns their number; 0 means end of
    /// stream.
    pub fn poll_fill(&mut self, context: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(self).poll_read(context, &mut read))?;
            buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Reads at most `bytes_max` into `buffer` and returns their number; 0 means end of stream. TLS
    /// returns one record at a time, so all that have arrived are read.
    fn poll_read_large(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        let is_plain = self.is_plain();
        let begin = buffer.len();
        loop {
            let filled = buffer.len() - begin;
            let mut rest = (&mut *buffer).limit(bytes_max - filled);
            match pin!(self.read_buf(&mut rest)).poll(context) {
                Poll::Pending if filled > 0 => return Poll::Ready(Ok(filled)),
                // An error or the end comes again with the next read.
                Poll::Ready(Ok(0) | Err(_)) if filled > 0 => return Poll::Ready(Ok(filled)),
                Poll::Ready(Ok(read)) if read > 0 && !is_plain && filled + read < bytes_max => {}
                Poll::Ready(Ok(read)) => return Poll::Ready(Ok(filled + read)),
                other => return other,
            }
        }
    }

    /// Whether the kernel holds neither bytes nor the end of the stream. This asks the kernel,
    /// because the async runtime only knows the state of its last poll, and a pooled connection may
    /// be used again before the next poll.
    pub fn is_silent(&self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        rustix::net::recv(self.descriptor(), &mut [0; 1], flags).is_err_and(|error| error == rustix::io::Errno::AGAIN)
    }

    /// Reads the next bytes and leaves them in the kernel; 0 at the end of the stream. Only for a
    /// stream without TLS.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buffer).await,
            Self::Unix(stream) => {
                let peek = || {
                    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
                    Ok(rustix::net::recv(stream, &mut *buffer, flags)?.0)
                };
                stream.async_io(tokio::io::Interest::READABLE, peek).await
            }
            Self::Server(_) | Self::Client(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether the stream has no TLS, and so no buffer of its own between the kernel and the
    /// reader.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    /// Makes dropping the connection send a reset, so that the peer does not take a part of a
    /// message for the whole.
    pub fn reset_on_drop(&self) {
        // If this fails, the connection is gone already or is a UNIX socket, which has no resets.
        let _ = socket2::SockRef::from(&self.descriptor()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// The protocol that ALPN selected (RFC 7301). None without TLS or if the peer does not use
    /// ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Server(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Client(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// The descriptor of the socket.
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Server(stream) => stream.get_ref().0.as_fd(),
            Self::Client(stream) => stream.get_ref().0.as_fd(),
        }
    }
}

impl Io for Stream {
    #[inline]
    fn poll_fill(&mut self, context: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        Self::poll_fill(self, context, buffer)
    }

    fn poll_read_large(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        Self::poll_read_large(self, context, buffer, bytes_max)
    }

    fn has_plain_socket(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    fn poll_fill_pipe(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        let Self::Tcp(socket) = self else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        loop {
            ready!(socket.poll_read_ready(context))?;
            match socket.try_io(Interest::READABLE, || pipe.fill(&*socket, bytes_max)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }

    fn poll_drain_pipe(&mut self, context: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        let Self::Tcp(socket) = self else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        loop {
            ready!(socket.poll_write_ready(context))?;
            match socket.try_io(Interest::WRITABLE, || pipe.drain(&*socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
