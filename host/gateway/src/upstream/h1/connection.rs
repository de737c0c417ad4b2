//! One HTTP/1 connection to an endpoint, while it is idle and while an exchange uses it.
//!
//! This module does not know: requests, responses, the pool.

use std::task::Context;

use bytes::BytesMut;

use crate::net::Stream;
use crate::upstream::connect::TlsConfig;
use crate::upstream::endpoint::ConnectionPermit;
use witgate_http::error::{Error, Kind};
use witgate_http::h1::incoming::ReceiveError;
use witgate_http::h1::io::BufferedIo;

/// A connection to an endpoint, idle or owned by one exchange.
pub(in crate::upstream) struct Connection {
    pub(super) io: BufferedIo<Stream>,
    /// The TLS configuration that the connection was made with; none without TLS.
    pub(in crate::upstream) tls_config: TlsConfig,
    /// Counts the connection for its endpoint until it is closed.
    _permit: Option<ConnectionPermit>,
}

/// Returns a connection to its pool once the response was read to its end and another exchange may
/// follow.
pub(in crate::upstream) type GiveBack = Box<dyn FnOnce(Box<Connection>)>;

impl Connection {
    pub(in crate::upstream) fn new(io: Stream, tls_config: TlsConfig, permit: Option<ConnectionPermit>) -> Self {
        Self { io: BufferedIo::new(io, BytesMut::new()), tls_config, _permit: permit }
    }

    /// Whether the upstream has neither closed the connection nor sent anything while it was idle.
    pub(in crate::upstream) fn is_open(&mut self) -> bool {
        self.io.input.is_empty() && (self.io.io.is_plain() || self.has_nothing_decrypted()) && self.io.io.is_silent()
    }

    /// Whether TLS holds no decrypted bytes either.
    fn has_nothing_decrypted(&mut self) -> bool {
        self.io.poll_fill(&mut Context::from_waker(std::task::Waker::noop())).is_pending()
    }
}

/// The upstream's fault, as the exchange reports it. `closed` says what the upstream left
/// incomplete.
pub(super) fn upstream_error(error: ReceiveError, closed: &'static str) -> Error {
    match error {
        ReceiveError::Invalid(error) => invalid_response(error),
        ReceiveError::Closed => Error::new(Kind::UpstreamClosed, closed),
        ReceiveError::Io(error) => Error::new(Kind::UpstreamClosed, error.to_string()),
        ReceiveError::TooSlow => Error::new(Kind::UpstreamTimeout, "it was silent for too long"),
    }
}

/// Turns a parser's error, which by itself blames the client, into the upstream's.
pub(super) fn invalid_response(error: Error) -> Error {
    Error::new(Kind::UpstreamProtocol, error.detail)
}
