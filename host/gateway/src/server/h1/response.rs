//! Sends a response over an HTTP/1.1 connection: its framing, its head, then its body.
//!
//! This module does not know: how requests arrive, what happens to a request (`pipeline`).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, StatusCode, Version, header};
use http_body::Body as _;
use tokio::io::AsyncWrite as _;

use super::conn::{Http1Conn, SharedConn};
use crate::pipeline::exchange;
use witgate_http::body::Body;
use witgate_http::h1::head::RequestHead;
use witgate_http::h1::io::Io as _;
use witgate_http::h1::outgoing::{Gathered, Outgoing};
use witgate_http::h1::{Framing, encode};
use witgate_http::semantics::fields::has_member;

/// The properties of a request that decide the form of its response.
pub(super) struct ResponseForm {
    method: Method,
    pub(super) version: Version,
    keep_alive: bool,
    /// Whether the client accepts trailers (RFC 9110, section 6.5.1).
    trailers: bool,
}

impl ResponseForm {
    pub(super) fn new(head: &RequestHead) -> Self {
        let trailers = has_member(&head.headers, header::TE, "trailers");
        Self { method: head.method.clone(), version: head.version, keep_alive: head.keep_alive, trailers }
    }

    /// For a request whose head could not be read.
    pub(super) fn for_refused() -> Self {
        Self { method: Method::GET, version: Version::HTTP_11, keep_alive: false, trailers: false }
    }
}

/// Sends a whole response and returns whether the connection can be reused. After an error the
/// client has not received all of the response.
pub(super) async fn send_response(
    conn: &SharedConn,
    response: http::Response<Body>,
    form: &ResponseForm,
    closing: bool,
) -> Result<bool, ()> {
    let (mut head, body) = response.into_parts();
    let is_tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let bodiless = form.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    let length = body.size_hint().exact();
    let framing = match (bodiless || is_tunnel, length) {
        (true, _) => None,
        (false, Some(length)) => Some(Framing::Length(length)),
        (false, None) if form.version == Version::HTTP_11 => Some(Framing::Chunked),
        (false, None) => Some(Framing::UntilClose),
    };
    if is_tunnel || head.status == StatusCode::NO_CONTENT {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let keep = {
        let conn = &mut *conn.borrow_mut();
        let can_follow = can_reuse(conn, &head) && !is_tunnel && framing != Some(Framing::UntilClose);
        let keep = form.keep_alive && !closing && can_follow;
        let out = &mut conn.io.output;
        encode::response(out, head.status, &head.headers, framing);
        if !head.headers.contains_key(header::DATE) {
            encode::date(out);
        }
        match (is_tunnel, keep) {
            (true, _) => encode::field(out, "connection", "upgrade"),
            (false, false) => encode::field(out, "connection", "close"),
            (false, true) if form.version == Version::HTTP_10 => encode::field(out, "connection", "keep-alive"),
            (false, true) => {}
        }
        encode::end(out);
        keep
    };
    let mut outgoing = if bodiless || length == Some(0) {
        Outgoing::none()
    } else {
        let accepts_pipes = conn.borrow().io.io.has_plain_socket();
        Outgoing::new(body, framing == Some(Framing::Chunked), form.trailers, accepts_pipes)
    };
    poll_fn(|context| poll_body(&mut outgoing, conn, is_tunnel, context)).await.map(|()| keep)
}

/// Whether another request may follow on the connection, as far as the request's body and the
/// response's policy decide it.
fn can_reuse(conn: &mut Http1Conn, head: &http::response::Parts) -> bool {
    // A client that still waits for `100 Continue` may or may not send its body: the gateway could
    // not tell the body from the next request.
    let owes_continue = std::mem::take(&mut conn.owes_continue) && !conn.has_read_body();
    let refuses_body = matches!(head.status.as_u16(), 408 | 413) && !conn.has_read_body();
    // The gateway discards only a short rest, so the next request would not be read.
    let is_long = conn.exceeds_discard_limit();
    let must_close = head.extensions.get::<exchange::CloseConnection>().is_some();
    !owes_continue && !refuses_body && !is_long && !must_close
}

/// Sends the body, and watches the client while there is nothing to send. In a tunnel, the end of
/// the client's direction is not the end of the response.
fn poll_body(
    outgoing: &mut Outgoing,
    conn: &SharedConn,
    is_tunnel: bool,
    context: &mut Context<'_>,
) -> Poll<Result<(), ()>> {
    loop {
        // The body may read the request's body from this same connection, so no borrow may exist
        // while it is polled.
        let mut out = std::mem::take(&mut conn.borrow_mut().io.output);
        let gathered = outgoing.gather(context, &mut out);
        let conn = &mut *conn.borrow_mut();
        conn.io.output = out;
        let gathered = match gathered {
            Ok(gathered) => gathered,
            Err(error) => {
                tracing::debug!(detail = error.detail, "a response body ended early");
                return Poll::Ready(Err(()));
            }
        };
        match conn.poll_send(context, &mut outgoing.long) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
            Poll::Pending => return Poll::Pending,
        }
        match gathered {
            Gathered::End if is_tunnel && !outgoing.has_closed() => {
                // The upstream has closed its direction; the client may still send.
                let _ = Pin::new(&mut conn.io.io).poll_shutdown(context);
            }
            Gathered::End => return Poll::Ready(Ok(())),
            Gathered::Pending if is_tunnel => return Poll::Pending,
            Gathered::Pending => return conn.poll_disconnect(context).map(|()| Err(())),
            Gathered::More => {}
        }
    }
}
