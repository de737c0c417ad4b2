//! Sockets that wait for connections: TCP and UNIX.
//!
//! A connection over a UNIX socket has no IP address. Its client counts as 127.0.0.1: it is on this
//! host, and `trusted_proxies` decides by that address whether it may name another client. This
//! module does not know: who uses a connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::task::{Context, Poll, ready};

use super::Stream;

/// The address of a client over a UNIX socket.
const LOCAL_CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A socket that listens, or will.
#[derive(Debug)]
pub enum ListeningSocket {
    /// At an IP address and a port.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener),
}

/// The same for a runtime.
pub enum AsyncListener {
    /// At an IP address and a port.
    Tcp(tokio::net::TcpListener),
    /// At a path.
    Unix(tokio::net::UnixListener),
}

impl ListeningSocket {
    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// The process has too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// Makes the runtime of this thread wait for connections.
    ///
    /// # Errors
    /// The runtime cannot take the descriptor.
    pub fn into_async(self) -> io::Result<AsyncListener> {
        Ok(match self {
            Self::Tcp(socket) => AsyncListener::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Unix(socket) => AsyncListener::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsyncListener {
    /// The next connection, and the address of its client.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    /// As [`Self::accept`].
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => {
                let (stream, address) = ready!(listener.poll_accept(context))?;
                // If this fails, the client is gone, which its first read tells.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), address))
            }
            Self::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(context))?;
                Ok((Stream::Unix(stream), LOCAL_CLIENT))
            }
        })
    }
}
