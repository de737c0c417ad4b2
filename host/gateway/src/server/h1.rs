//! HTTP/1.1 to clients: reads one request, sends its response, then reads the next.
//!
//! A connection is one task with one buffer for each direction. While an exchange runs, the task
//! watches the socket: if the client disconnects, the exchange ends at once; pipelined requests
//! wait in the buffer. A response that cannot be completed ends the connection with a reset, so
//! that a client never takes half a body for a whole one. This module does not know: what happens
//! to a request (`pipeline`).

mod conn;

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

use super::worker::{ConnectionTimeouts, DRAIN_GRACE, Worker};
use crate::net::Stream;
use crate::pipeline::exchange;
use conn::{Http1Conn, RequestBody, SharedConn};
use witgate_http::body::{Body, InterimSink};
use witgate_http::error::{Error, Kind};
use witgate_http::h1::head::{Limits, RequestHead, looks_like_http, parse_request};
use witgate_http::h1::incoming::{IncomingHead, ReceiveError};
use witgate_http::h1::outgoing::{Gathered, Outgoing};
use witgate_http::h1::{Framing, encode};
use witgate_http::semantics::fields::has_member;
use witgate_http::throughput::yield_to_ready_tasks;
use witgate_runtime::exchange::{Client, Upgrade};

/// Bytes and time that are spent on an unread request body, so that the connection can be reused.
const DISCARD_BYTES_MAX: usize = 256 << 10;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);

/// Serves a connection to its end. `input` holds the bytes that were already read.
pub(super) async fn serve(worker: &Worker, io: Stream, input: BytesMut, client: &Arc<Client>) {
    let settings = worker.settings();
    let conn: SharedConn = Rc::new(RefCell::new(Http1Conn::new(io, input, settings.receive, settings.send)));
    let interim = interim_sink(&conn);
    let mut drain = pin!(worker.drained());
    loop {
        let head = match next_head(&conn, drain.as_mut(), &settings.head, settings.timeouts).await {
            Next::Head(head) => head,
            Next::End => return,
            Next::Refused(error) => {
                let response = exchange::refuse_invalid(worker.context(client, None), error);
                if send_response(&conn, response, &ResponseForm::for_refused(), false).await.is_ok() {
                    linger(&conn, true).await;
                }
                return;
            }
        };
        let form = ResponseForm::new(&head);
        let request = start_request(&conn, head);
        let interim = (form.version == Version::HTTP_11).then(|| interim.clone());
        let response = {
            let mut exchange = pin!(exchange::handle(worker.context(client, interim), request));
            let answered = poll_fn(|context| match exchange.as_mut().poll(context) {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => poll_client(&conn, context).map(|()| None),
            });
            answered.await
        };
        let Some(response) = response else { return };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            conn.borrow_mut().tunnel_idle = Some(settings.timeouts.tunnel);
        } else {
            conn.borrow_mut().cancel_upgrade();
        }
        // Batch response writes across tasks.
        yield_to_ready_tasks().await;
        let Ok(keep) = send_response(&conn, response, &form, worker.is_draining()).await else {
            conn.borrow().io.io.reset_on_drop();
            return;
        };
        if !(keep && discard_body(&conn).await) {
            let expects_more = !conn.borrow().has_read_body();
            linger(&conn, expects_more).await;
            return;
        }
    }
}

/// Writes interim responses to the connection's output buffer while the connection exists.
fn interim_sink(conn: &SharedConn) -> InterimSink {
    let conn = Rc::downgrade(conn);
    Rc::new(move |status, headers| {
        if let Some(conn) = conn.upgrade() {
            let out = &mut conn.borrow_mut().io.output;
            encode::response(out, status, headers, Some(Framing::None));
            encode::end(out);
        }
    })
}

/// The properties of a request that decide the form of its response.
struct ResponseForm {
    method: Method,
    version: Version,
    keep_alive: bool,
    /// Whether the client accepts trailers (RFC 9110, section 6.5.1).
    trailers: bool,
}

impl ResponseForm {
    fn new(head: &RequestHead) -> Self {
        let trailers = has_member(&head.headers, header::TE, "trailers");
        Self { method: head.method.clone(), version: head.version, keep_alive: head.keep_alive, trailers }
    }

    /// For a request whose head could not be read.
    fn for_refused() -> Self {
        Self { method: Method::GET, version: Version::HTTP_11, keep_alive: false, trailers: false }
    }
}

enum Next {
    Head(RequestHead),
    /// The client closed the connection or was idle for too long, or the gateway drains.
    End,
    Refused(Error),
}

/// Waits for the next request's head.
async fn next_head(
    conn: &SharedConn,
    mut drain: Pin<&mut impl Future>,
    limits: &Limits,
    timeouts: ConnectionTimeouts,
) -> Next {
    let (mut incoming, began) = (IncomingHead::default(), Instant::now());
    // Since when a head is incomplete. Nearly all heads arrive whole and need no clock reading.
    let mut first_byte = None;
    let mut drained_at = None;
    poll_fn(|context| {
        let io = &mut conn.borrow_mut().io;
        match incoming.poll(io, limits, context) {
            Poll::Ready(Ok(head)) => return Poll::Ready(parse_head(head)),
            Poll::Ready(Err(ReceiveError::Invalid(error))) => return Poll::Ready(Next::Refused(error)),
            Poll::Ready(Err(_)) => return Poll::Ready(Next::End),
            Poll::Pending => {}
        }
        if !io.input.is_empty() {
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
        io.timer.poll_until(context, deadline).map(|()| match first_byte {
            Some(_) => Next::Refused(Error::new(Kind::ClientTimeout, "the request's head came too slowly")),
            None => Next::End,
        })
    })
    .await
}

fn parse_head(head: Bytes) -> Next {
    match parse_request(head.clone()) {
        Ok(head) => Next::Head(head),
        // For example a broken HTTP/2 preface (RFC 9113, section 3.4): its sender could not read an
        // HTTP/1 response.
        Err(_) if !looks_like_http(&head) => Next::End,
        Err(error) => Next::Refused(error),
    }
}

/// Builds the request for the exchange; its body reads from the connection. If the client asks to
/// change the protocol, the body is everything that it sends afterwards.
fn start_request(conn: &SharedConn, head: RequestHead) -> http::Request<Body> {
    let upgrade = head.upgrade();
    let framing = if upgrade.is_some() { Framing::UntilClose } else { head.framing };
    conn.borrow_mut().begin(framing, head.expects_continue);
    let body = if framing == Framing::None { Body::empty() } else { Body::stream(Box::pin(RequestBody(conn.clone()))) };
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

/// While the exchange runs: sends interim responses and reads ahead. Ready when the client is gone.
fn poll_client(conn: &SharedConn, context: &mut Context<'_>) -> Poll<()> {
    let mut conn = conn.borrow_mut();
    if conn.owes_output() && matches!(conn.poll_send(context, &mut Bytes::new()), Poll::Ready(Err(_))) {
        return Poll::Ready(());
    }
    conn.poll_disconnect(context)
}

/// Sends a whole response and returns whether the connection can be reused. After an error the
/// client has not received all of the response.
async fn send_response(
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
        Outgoing::new(body, framing == Some(Framing::Chunked), form.trailers)
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
    let must_close = head.extensions.get::<exchange::CloseConnection>().is_some();
    !owes_continue && !refuses_body && !must_close
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
                tracing::debug!(detail = error.detail, "a response body broke off");
                return Poll::Ready(Err(()));
            }
        };
        match conn.poll_send(context, &mut outgoing.large) {
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

/// Reads the rest of an unread request body; false if that takes too many bytes or too long.
async fn discard_body(conn: &SharedConn) -> bool {
    if conn.borrow().has_read_body() {
        return true;
    }
    let mut left = DISCARD_BYTES_MAX;
    let discarding = poll_fn(|context| {
        loop {
            match conn.borrow_mut().poll_body(context) {
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

/// Closes the connection in two steps, so that the client receives what was sent: closing a socket
/// with unread bytes would reset it (RFC 9112, section 9.6).
async fn linger(conn: &SharedConn, expects_more: bool) {
    let ending = poll_fn(|context| Pin::new(&mut conn.borrow_mut().io.io).poll_shutdown(context));
    // TLS sends a close_notify alert, which a full socket does not take.
    if tokio::time::timeout(DISCARD_TIME_MAX, ending).await.is_err() {
        return;
    }
    if !expects_more && conn.borrow().io.input.is_empty() {
        return;
    }
    let mut left = DISCARD_BYTES_MAX;
    let reading = poll_fn(|context| {
        let io = &mut conn.borrow_mut().io;
        loop {
            io.input.clear();
            match io.poll_fill(context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) if read > left => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => left -= read,
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, reading).await;
}
