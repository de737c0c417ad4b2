//! A byte stream to a client or an upstream: TCP, or TLS over it.
//!
//! One enum rather than a trait object, so that reading and writing are direct calls. Reading goes through a buffer that the thread's connections share:
//! an idle connection holds no memory for what it may one day receive, and a read asks for as much as there is. Must not know: HTTP, configuration.

pub mod tls;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// Bytes that one read takes at most: also what a client that takes nothing makes the gateway hold.
const READ_BYTES_MAX: usize = 16 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES_MAX]);
}

/// A connection to a client or an upstream.
#[derive(Debug)]
pub enum Stream {
    /// Plain text.
    Tcp(TcpStream),
    /// TLS, the gateway being the server.
    Server(Box<server::TlsStream<TcpStream>>),
    /// TLS, the gateway being the client.
    Client(Box<client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Appends what has arrived to `buffer`; 0 at the end of the stream.
    pub fn poll_fill(&mut self, context: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(self).poll_read(context, &mut read))?;
            buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Whether nothing has arrived, as the kernel knows it: the runtime only knows what its last look showed, and a connection may be taken again before the next.
    pub fn is_silent(&self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        rustix::net::recv(self.tcp(), &mut [0; 1], flags).is_err_and(|error| error == rustix::io::Errno::AGAIN)
    }

    /// Whether there is nothing between the kernel and who reads.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Makes the end of this connection a reset: the peer must not take what it has for the whole.
    pub fn reset_on_drop(&self) {
        // Where it fails the connection is gone already.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// The protocol agreed on by ALPN (RFC 7301); none on a plain connection or where the peer took no part.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) => None,
            Self::Server(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Client(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Server(stream) => stream.get_ref().0,
            Self::Client(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
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
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
