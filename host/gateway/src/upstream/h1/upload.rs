//! Sends a request to an HTTP/1.1 endpoint: its head, then its body, while the response may already
//! arrive.
//!
//! This module does not know: responses, the pool.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Method, header};
use http_body::Body as _;
use tokio::io::AsyncWrite as _;

use super::connection::Connection;
use witgate_http::body::Body;
use witgate_http::error::Error;
use witgate_http::h1::io::Io as _;
use witgate_http::h1::outgoing::{Gathered, Outgoing};
use witgate_http::h1::{Framing, encode};
use witgate_runtime::exchange::Upgrade;

/// How long the body waits for an upstream that does not answer `expect: 100-continue` (RFC 9110,
/// section 10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A request that is being sent.
pub(super) struct Upload {
    outgoing: Outgoing,
    /// The body waits for `100 Continue` until this instant.
    continue_deadline: Option<Instant>,
    /// The request asks for a protocol change and the upstream has not agreed yet.
    awaits_switch: bool,
    /// Writing failed, or the body must not be sent. The upstream may have answered nevertheless.
    is_broken: bool,
    /// The body is one direction of a tunnel: after its last byte this direction is closed.
    is_tunnel: bool,
    has_sent: bool,
    /// Everything was written, and TLS holds nothing back.
    is_done: bool,
}

impl Upload {
    /// Puts the request's head into the connection's output buffer. [`Upload::poll`] sends it.
    pub(super) fn begin(
        connection: &mut Connection,
        head: &mut http::request::Parts,
        body: Body,
        upgrade: Option<&Upgrade>,
    ) -> Self {
        let expects_continue = head.headers.contains_key(header::EXPECT);
        let framing = match (upgrade, body.size_hint().exact()) {
            (Some(_), _) => Framing::None,
            (None, Some(0)) if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => Framing::Length(0),
            (None, Some(0)) => Framing::None,
            (None, Some(length)) => Framing::Length(length),
            (None, None) => Framing::Chunked,
        };
        let awaits_continue = expects_continue && body.buffered().is_none();
        if expects_continue && !awaits_continue {
            // The body is in memory already: there is nothing to wait for.
            head.headers.remove(header::EXPECT);
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let out = &mut connection.io.output;
        encode::request(out, &head.method, target, &head.headers, framing);
        if let Some(Upgrade(protocol)) = upgrade {
            encode::field(out, "connection", "upgrade");
            encode::field(out, "upgrade", protocol.to_str().unwrap_or_default());
        }
        encode::end(out);
        let outgoing = if framing == Framing::None && upgrade.is_none() {
            Outgoing::none()
        } else {
            Outgoing::new(body, framing == Framing::Chunked, true, connection.io.io.has_plain_socket())
        };
        Self {
            outgoing,
            continue_deadline: awaits_continue.then(|| Instant::now() + CONTINUE_WAIT),
            awaits_switch: upgrade.is_some(),
            is_broken: false,
            is_tunnel: upgrade.is_some(),
            has_sent: false,
            is_done: false,
        }
    }

    /// Ready once everything was sent or nothing more can be sent. An error comes from the body, so
    /// it is the client's fault.
    pub(super) fn poll(&mut self, connection: &mut Connection, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.is_broken || self.is_done {
                return Poll::Ready(Ok(()));
            }
            if let Some(deadline) = self.continue_deadline
                && connection.io.timer.poll_until(context, deadline).is_ready()
            {
                self.continue_deadline = None;
            }
            let gathered = if self.continue_deadline.is_some() || self.awaits_switch {
                Gathered::Pending
            } else {
                self.outgoing.gather(context, &mut connection.io.output)?
            };
            let mut written = 0;
            let sent = connection.io.poll_write(context, &mut self.outgoing.long, &mut written);
            self.has_sent |= written > 0;
            match sent {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "an upstream stopped reading a request");
                    self.is_broken = true;
                }
                Poll::Pending => return Poll::Pending,
            }
            match gathered {
                Gathered::Pending => return Poll::Pending,
                Gathered::More => {}
                Gathered::End => {
                    if self.is_tunnel {
                        let _ = Pin::new(&mut connection.io.io).poll_shutdown(context);
                    }
                    self.is_done = true;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Whether a byte of the request was written.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Whether the whole request was written, so that another one may follow.
    pub(super) fn is_complete(&self) -> bool {
        self.is_done && !self.is_broken
    }

    /// Whether the body is one direction of a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        self.is_tunnel
    }

    /// The upstream sent `100 Continue`.
    pub(super) fn continue_body(&mut self) {
        self.continue_deadline = None;
    }

    /// The final response came. If the upstream did not ask for the body until then, the body is
    /// not sent, so the client is not asked for it either (RFC 9110, section 10.1.1).
    pub(super) fn stop_waiting_for_continue(&mut self) {
        if self.continue_deadline.take().is_some() {
            self.is_broken = true;
        }
    }

    /// The upstream changed the protocol: the tunnel begins.
    pub(super) fn start_tunnel(&mut self) {
        self.awaits_switch = false;
    }

    /// The upstream kept the protocol: what the client may send is its next request, not this one's
    /// body.
    pub(super) fn cancel_tunnel(&mut self) {
        self.outgoing = Outgoing::none();
        self.is_tunnel = false;
        self.awaits_switch = false;
        self.is_done = true;
    }
}
