//! HTTP/1.1 to clients: reads one request, sends its response, then reads the next.
//!
//! A connection is one task with one buffer for each direction. While an exchange runs, the task
//! watches the socket: if the client disconnects, the exchange ends at once; pipelined requests
//! wait in the buffer. A response that cannot be completed ends the connection with a reset, so
//! that a client never takes half a body for a whole one.
//!
//! While a client pauses, the task keeps only [`Waiting`]: buffers and the state of an exchange,
//! together about 12 KiB, exist only while requests come. Gain: an idle connection costs less than
//! 2 KiB. Price: two allocations for each group of requests. This module does not know: what
//! happens to a request (`pipeline`).

mod conn;
mod response;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version};
use tokio::io::AsyncWrite as _;

use super::idle_connections::ThreadConnection;
use super::linger::Linger;
use super::worker::{DRAIN_GRACE, Worker};
use crate::net::Stream;
use crate::pipeline::exchange;
use conn::{DISCARD_BYTES_MAX, Http1Conn, RequestBody, SharedConn};
use response::{ResponseForm, send_response};
use witgate_config::HalfClose;
use witgate_http::body::{Body, InterimSink};
use witgate_http::error::{Error, Kind};
use witgate_http::h1::head::{RequestHead, looks_like_http, parse_request};
use witgate_http::h1::incoming::{IncomingHead, ReceiveError};
use witgate_http::h1::io::{BufferedIo, LongPart};
use witgate_http::h1::{Framing, encode};
use witgate_http::throughput::{Timer, yield_to_ready_tasks};
use witgate_runtime::exchange::{Client, Upgrade};

/// A connection without a request for so long gives back the memory that only requests need.
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time that is spent on an unread request body, so that the connection can be reused.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);
/// To send what remains of a response and, over TLS, the close_notify alert.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(2);

/// Serves a connection to its end. `input` holds the bytes that were already read.
pub(super) async fn serve(
    worker: &Worker,
    connection: &ThreadConnection,
    io: Stream,
    mut input: BytesMut,
    client: &Arc<Client>,
    half_close: HalfClose,
) {
    let pause = Pause { began: Instant::now(), limit: worker.settings().timeouts.first_byte() };
    let mut waiting = Waiting { io, timer: Timer::default(), pause };
    loop {
        connection.set_idle(waiting.pause.began);
        if input.is_empty() {
            match await_request(worker, connection, &mut waiting).await {
                Some(first) => input = first,
                None => return,
            }
        }
        let requests = serve_requests(worker, connection, waiting, std::mem::take(&mut input), client, half_close);
        match Box::pin(requests).await {
            Some(next) => waiting = next,
            None => return,
        }
    }
}

/// All that an idle connection keeps.
struct Waiting {
    io: Stream,
    timer: Timer,
    pause: Pause,
}

/// The time between two requests.
#[derive(Clone, Copy)]
struct Pause {
    began: Instant,
    /// After so long without a request the connection is closed.
    limit: Duration,
}

impl Pause {
    /// A request of an idle client may be on its way when a drain begins.
    fn ends(&self, drained_at: Option<Instant>) -> Instant {
        let idle = self.began + self.limit;
        drained_at.map_or(idle, |drained| idle.min(drained + DRAIN_GRACE))
    }
}

/// Waits for the first bytes of a request. None if there are none: the client closed the
/// connection or was idle for too long, or the gateway drains.
async fn await_request(worker: &Worker, connection: &ThreadConnection, waiting: &mut Waiting) -> Option<BytesMut> {
    let mut drained_at = None;
    poll_fn(|context| {
        let mut input = BytesMut::new();
        if let Poll::Ready(read) = waiting.io.poll_fill(context, &mut input) {
            return Poll::Ready(read.is_ok_and(|read| read > 0).then_some(input));
        }
        note_drain(worker, connection, &mut drained_at, context);
        waiting.timer.poll_until(context, waiting.pause.ends(drained_at)).map(|()| None)
    })
    .await
}

/// Sets `drained_at` if the gateway drains. Wakes the task again when the drain begins.
fn note_drain(worker: &Worker, connection: &ThreadConnection, drained_at: &mut Option<Instant>, context: &Context<'_>) {
    if drained_at.is_some() {
        return;
    }
    connection.wake_on_drain(context.waker());
    if worker.is_draining() {
        *drained_at = Some(Instant::now());
    }
}

/// Serves requests until the client pauses for [`BUSY_PAUSE_MAX`]. None if the connection ends.
async fn serve_requests(
    worker: &Worker,
    connection: &ThreadConnection,
    Waiting { io, timer, mut pause }: Waiting,
    input: BytesMut,
    client: &Arc<Client>,
    half_close: HalfClose,
) -> Option<Waiting> {
    let settings = worker.settings();
    let timeouts = settings.timeouts;
    let conn: SharedConn = Rc::new(RefCell::new(Http1Conn::new(io, input, timer, settings, half_close)));
    let interim = interim_sink(&conn);
    loop {
        connection.set_idle(pause.began);
        let head = match next_head(worker, connection, &conn, pause).await {
            Next::Head(head) => head,
            Next::Pause => {
                let BufferedIo { io, timer, .. } = Rc::into_inner(conn)?.into_inner().io;
                return Some(Waiting { io, timer, pause });
            }
            Next::End => return None,
            Next::Refused(error, head) => {
                let response = exchange::refuse_invalid(worker.context(client, None), &head, error);
                if send_response(&conn, response, &ResponseForm::for_refused(), false).await.is_ok() {
                    linger(worker, &conn, true).await;
                }
                return None;
            }
        };
        connection.set_busy();
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
        }?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            conn.borrow_mut().tunnel_idle = Some(timeouts.tunnel);
        } else {
            conn.borrow_mut().cancel_upgrade();
        }
        // Batch response writes across tasks.
        yield_to_ready_tasks().await;
        let Ok(keep) = send_response(&conn, response, &form, worker.is_draining()).await else {
            conn.borrow().io.io.reset_on_drop();
            return None;
        };
        if !(keep && discard_body(&conn).await) {
            let expects_more = !conn.borrow().has_read_body();
            linger(worker, &conn, expects_more).await;
            return None;
        }
        pause = Pause { began: Instant::now(), limit: timeouts.idle };
    }
}

/// Writes interim responses to the connection's output buffer while the connection exists.
fn interim_sink(conn: &SharedConn) -> InterimSink {
    let conn = Rc::downgrade(conn);
    Rc::new(move |status, headers| {
        if let Some(conn) = conn.upgrade() {
            let out = &mut conn.borrow_mut().io.output;
            // An interim response has no content-length (RFC 9110, section 8.6).
            encode::response(out, status, headers, Some(Framing::None));
            encode::end(out);
        }
    })
}

enum Next {
    Head(RequestHead),
    /// No byte of a request has arrived for [`BUSY_PAUSE_MAX`].
    Pause,
    /// The client closed the connection or was idle for too long, or the gateway drains.
    End,
    /// With the first bytes of what is not a request.
    Refused(Error, Bytes),
}

/// Waits for the next request's head.
async fn next_head(worker: &Worker, connection: &ThreadConnection, conn: &SharedConn, pause: Pause) -> Next {
    // The body of the last request may still exist. Without one, only this connection uses `conn`.
    let may_pause = pause.limit > BUSY_PAUSE_MAX && Rc::strong_count(conn) == 1;
    let mut incoming = IncomingHead::default();
    // Since when a head is incomplete. Nearly all heads arrive whole and need no clock reading.
    let mut first_byte = None;
    let mut drained_at = None;
    poll_fn(|context| {
        let Http1Conn { io, settings, .. } = &mut *conn.borrow_mut();
        match incoming.poll(io, &settings.head, context) {
            Poll::Ready(Ok(head)) => return Poll::Ready(parse_head(head)),
            Poll::Ready(Err(ReceiveError::Invalid(error))) => return Poll::Ready(refused(error, &io.input)),
            Poll::Ready(Err(_)) => return Poll::Ready(Next::End),
            Poll::Pending => {}
        }
        if !io.input.is_empty() {
            first_byte.get_or_insert_with(Instant::now);
        }
        note_drain(worker, connection, &mut drained_at, context);
        let (deadline, late) = match (first_byte, drained_at) {
            (Some(first), _) => (first + settings.timeouts.head, None),
            (None, None) if may_pause => (pause.began + BUSY_PAUSE_MAX, Some(Next::Pause)),
            (None, _) => (pause.ends(drained_at), Some(Next::End)),
        };
        io.timer.poll_until(context, deadline).map(|()| {
            let too_slow = || Error::new(Kind::ClientTimeout, "the request's head came too slowly");
            late.unwrap_or_else(|| refused(too_slow(), &io.input))
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
        Err(error) => Next::Refused(error, head),
    }
}

/// The first line is enough for the log.
fn refused(error: Error, input: &[u8]) -> Next {
    const LINE_MAX: usize = 2 << 10;
    Next::Refused(error, Bytes::copy_from_slice(&input[..input.len().min(LINE_MAX)]))
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
    if conn.owes_output() && matches!(conn.poll_send(context, &mut LongPart::None), Poll::Ready(Err(_))) {
        return Poll::Ready(());
    }
    conn.poll_disconnect(context)
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
async fn linger(worker: &Worker, conn: &SharedConn, expects_more: bool) {
    let ending = poll_fn(|context| Pin::new(&mut conn.borrow_mut().io.io).poll_shutdown(context));
    // TLS sends a close_notify alert, which a full socket does not take.
    if tokio::time::timeout(SHUTDOWN_TIME_MAX, ending).await.is_err() {
        return;
    }
    if !expects_more && conn.borrow().io.input.is_empty() {
        return;
    }
    let read = |context: &mut Context<'_>| {
        let io = &mut conn.borrow_mut().io;
        io.input.clear();
        io.poll_fill(context).map(|read| read.unwrap_or(0))
    };
    Linger::new(worker).discard(read).await;
}
