//! HTTP/1.1 to clients: one request after the other, each answered before the next is looked at.
//!
//! A connection is one task and one buffer each way. While an exchange runs the socket is watched, so that an exchange whose client is gone ends at once, and what is
//! pipelined waits. An answer that cannot be finished ends the connection with a reset: half a body must never look like a whole one. Must not know: what happens
//! to a request (`proxy.rs`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header;
use http::{Method, StatusCode, Version};
use http_body::Body as _;
use tokio::io::AsyncWrite as _;

use super::wire::{RequestBody, Shared, Wire};
use super::worker::{DRAIN_GRACE, Waits, Worker};
use crate::net::Stream;
use crate::pipeline::exchange;
use witgate_http::body::{Body, Interim};
use witgate_http::error::{Error, Kind};
use witgate_http::h1::head::{Limits, RequestHead, Scan, is_http, request};
use witgate_http::h1::outgoing::{Gathered, Outgoing};
use witgate_http::h1::{Framing, encode};
use witgate_http::semantics::fields::has_member;
use witgate_http::throughput::others_first;
use witgate_runtime::exchange::{Client, Upgrade};

/// What is read of a body that nobody wanted, so that the connection can be used again.
const DISCARD_BYTES_MAX: usize = 256 << 10;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);

/// Serves a connection to its end. `input` was read already.
pub(super) async fn serve(worker: &Worker, io: Stream, input: BytesMut, client: &Arc<Client>) {
    let settings = worker.settings();
    let wire: Shared = Rc::new(RefCell::new(Wire::new(io, input, settings.receive, settings.send)));
    let interim: Interim = {
        let wire = Rc::downgrade(&wire);
        Rc::new(move |status, headers| {
            if let Some(wire) = wire.upgrade() {
                let out = &mut wire.borrow_mut().output;
                encode::response(out, status, headers, Some(Framing::None));
                encode::end(out);
            }
        })
    };
    let mut drain = pin!(worker.drained());
    loop {
        let head = match next_head(&wire, drain.as_mut(), &settings.head, settings.timeouts).await {
            Next::Head(head) => head,
            Next::End => return,
            Next::Refused(error) => {
                let response = exchange::refused(&worker.shared, client, &error);
                let asked =
                    Asked { method: Method::GET, version: Version::HTTP_11, keep_alive: false, trailers: false };
                if send_response(&wire, response, &asked, false).await.is_ok() {
                    linger(&wire, true).await;
                }
                return;
            }
        };
        let asked = Asked::new(&head);
        let request = take(&wire, head);
        let interim = (asked.version == Version::HTTP_11).then(|| interim.clone());
        let answer = {
            let mut exchange = pin!(exchange::handle(&worker.shared, &worker.pools, client, request, interim));
            let answered = poll_fn(|context| match exchange.as_mut().poll(context) {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => poll_idle(&wire, context).map(|()| None),
            });
            answered.await
        };
        let Some(response) = answer else { return };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            wire.borrow_mut().tunnel_idle = Some(settings.timeouts.tunnel);
        } else {
            wire.borrow_mut().stay();
        }
        // Answers leave one after the other.
        others_first().await;
        let Ok(keep) = send_response(&wire, response, &asked, worker.is_draining()).await else {
            wire.borrow().io.reset_on_drop();
            return;
        };
        if !(keep && discard_body(&wire).await) {
            let expects_more = !wire.borrow().has_read_body();
            linger(&wire, expects_more).await;
            return;
        }
    }
}

/// What the answer's form depends on.
struct Asked {
    method: Method,
    version: Version,
    keep_alive: bool,
    /// Whether the client can take trailers (RFC 9110, section 6.5.1).
    trailers: bool,
}

impl Asked {
    fn new(head: &RequestHead) -> Self {
        let trailers = has_member(&head.headers, header::TE, "trailers");
        Self { method: head.method.clone(), version: head.version, keep_alive: head.keep_alive, trailers }
    }
}

enum Next {
    Head(RequestHead),
    /// The client is done, or has been idle for too long, or the gateway drains.
    End,
    Refused(Error),
}

async fn next_head(wire: &Shared, mut drain: Pin<&mut impl Future>, limits: &Limits, timeouts: Waits) -> Next {
    let (mut scan, began) = (Scan::default(), Instant::now());
    // Since when a head is incomplete; nearly all come whole, and need no look at the clock.
    let mut first_byte = None;
    let mut drained_at = None;
    poll_fn(|context| {
        let wire = &mut *wire.borrow_mut();
        loop {
            match scan.find(&mut wire.input, limits) {
                Ok(Some(length)) => {
                    let head = wire.input.split_to(length).freeze();
                    return Poll::Ready(match request(head.clone()) {
                        Ok(head) => Next::Head(head),
                        // Such as an HTTP/2 preface that is none (RFC 9113, section 3.4).
                        Err(_) if !is_http(&head) => Next::End,
                        Err(error) => Next::Refused(error),
                    });
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Next::Refused(error)),
            }
            match wire.io.poll_fill(context, &mut wire.input) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        if !wire.input.is_empty() {
            first_byte.get_or_insert_with(Instant::now);
        }
        if drained_at.is_none() && drain.as_mut().poll(context).is_ready() {
            drained_at = Some(Instant::now());
        }
        let deadline = match (first_byte, drained_at) {
            (Some(first), _) => first + timeouts.head,
            (None, Some(drained)) => (drained + DRAIN_GRACE).min(began + timeouts.idle),
            (None, None) => began + timeouts.idle,
        };
        wire.timer.poll_until(context, deadline).map(|()| match first_byte {
            Some(_) => Next::Refused(Error::new(Kind::ClientTimeout, "the request's head came too slowly")),
            None => Next::End,
        })
    })
    .await
}

/// The request as the exchange gets it: its body stays on the wire. Where the client wants to change the protocol, the body is what it sends afterwards.
fn take(wire: &Shared, head: RequestHead) -> http::Request<Body> {
    let upgrade = head.upgrade();
    let framing = if upgrade.is_some() { Framing::UntilClose } else { head.framing };
    wire.borrow_mut().begin(framing, head.expects_continue);
    let body = if framing == Framing::None { Body::empty() } else { Body::stream(Box::pin(RequestBody(wire.clone()))) };
    let mut request = http::Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    if let Some(protocol) = upgrade {
        request.extensions_mut().insert(Upgrade(protocol));
    }
    request
}

/// While the exchange runs: sends interim responses, reads ahead, and is ready when the client is gone.
fn poll_idle(wire: &Shared, context: &mut Context<'_>) -> Poll<()> {
    let mut wire = wire.borrow_mut();
    if wire.owes_output() && matches!(wire.poll_send(context, &mut Bytes::new()), Poll::Ready(Err(_))) {
        return Poll::Ready(());
    }
    wire.poll_gone(context)
}

/// Sends a whole answer; gives whether the connection can be used again. An error means that the client did not get all of it.
async fn send_response(
    wire: &Shared,
    response: http::Response<Body>,
    asked: &Asked,
    closing: bool,
) -> Result<bool, ()> {
    let (mut head, body) = response.into_parts();
    let raw = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let bodiless = asked.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    let length = body.size_hint().exact();
    let framing = match (bodiless || raw, length) {
        (true, _) => None,
        (false, Some(length)) => Some(Framing::Length(length)),
        (false, None) if asked.version == Version::HTTP_11 => Some(Framing::Chunked),
        (false, None) => Some(Framing::UntilClose),
    };
    if raw || head.status == StatusCode::NO_CONTENT {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let keep = {
        let wire = &mut *wire.borrow_mut();
        // A client that still waits for leave to send its body may or may not send it: nobody could tell what comes next.
        let owed = std::mem::take(&mut wire.owes_continue) && !wire.has_read_body();
        let refuses_body = matches!(head.status.as_u16(), 408 | 413) && !wire.has_read_body();
        let is_trusted = head.extensions.get::<exchange::Distrust>().is_none();
        let can_follow = !owed && !refuses_body && is_trusted && !raw && framing != Some(Framing::UntilClose);
        let keep = asked.keep_alive && !closing && can_follow;
        let out = &mut wire.output;
        encode::response(out, head.status, &head.headers, framing);
        if !head.headers.contains_key(header::DATE) {
            encode::date(out);
        }
        match (raw, keep) {
            (true, _) => encode::field(out, "connection", "upgrade"),
            (false, false) => encode::field(out, "connection", "close"),
            (false, true) if asked.version == Version::HTTP_10 => encode::field(out, "connection", "keep-alive"),
            (false, true) => {}
        }
        encode::end(out);
        keep
    };
    let mut outgoing = if bodiless || length == Some(0) {
        Outgoing::none()
    } else {
        Outgoing::new(body, framing == Some(Framing::Chunked), asked.trailers)
    };
    poll_fn(|context| poll_body(&mut outgoing, wire, raw, context)).await.map(|()| keep)
}

/// Sends the body, and watches the client while it has nothing to send; in a tunnel (`raw`) the client's end is not the end.
fn poll_body(outgoing: &mut Outgoing, wire: &Shared, raw: bool, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
    loop {
        // The body may read the request's body from this very wire: no borrow may live while it is polled.
        let mut out = std::mem::take(&mut wire.borrow_mut().output);
        let gathered = outgoing.gather(context, &mut out);
        let wire = &mut *wire.borrow_mut();
        wire.output = out;
        let gathered = match gathered {
            Ok(gathered) => gathered,
            Err(error) => {
                tracing::debug!(detail = error.detail, "an answer's body broke off");
                return Poll::Ready(Err(()));
            }
        };
        match wire.poll_send(context, &mut outgoing.large) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
            Poll::Pending => return Poll::Pending,
        }
        match gathered {
            Gathered::End if raw && !outgoing.has_closed() => {
                // The upstream has said its last; the client may still speak.
                let _ = Pin::new(&mut wire.io).poll_shutdown(context);
            }
            Gathered::End => return Poll::Ready(Ok(())),
            Gathered::Waits if raw => return Poll::Pending,
            Gathered::Waits => return wire.poll_gone(context).map(|()| Err(())),
            Gathered::More => {}
        }
    }
}

/// Reads what is left of a body that nobody wanted; false where that is too much.
async fn discard_body(wire: &Shared) -> bool {
    if wire.borrow().has_read_body() {
        return true;
    }
    let mut left = DISCARD_BYTES_MAX;
    let discarding = poll_fn(|context| {
        loop {
            match wire.borrow_mut().poll_body(context) {
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                Poll::Ready(Some(Ok(frame))) => match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(rest) => left = rest,
                    None => return Poll::Ready(false),
                },
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    tokio::time::timeout(DISCARD_TIME_MAX, discarding).await.unwrap_or(false)
}

/// Ends a connection so that the client gets what was sent: closing with unread bytes would reset it (RFC 9112, section 9.6).
async fn linger(wire: &Shared, expects_more: bool) {
    let ending = poll_fn(|context| Pin::new(&mut wire.borrow_mut().io).poll_shutdown(context));
    // TLS has something to say, which the socket may not take.
    if tokio::time::timeout(DISCARD_TIME_MAX, ending).await.is_err() {
        return;
    }
    if !expects_more && wire.borrow().input.is_empty() {
        return;
    }
    let mut left = DISCARD_BYTES_MAX;
    let reading = poll_fn(|context| {
        let wire = &mut *wire.borrow_mut();
        loop {
            wire.input.clear();
            match wire.io.poll_fill(context, &mut wire.input) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) if read > left => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => left -= read,
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, reading).await;
}
