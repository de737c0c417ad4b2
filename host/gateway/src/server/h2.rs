//! HTTP/2 to clients: a task for the connection, one for each stream.
//!
//! Through the `h2` crate directly: interim responses, resets and extended CONNECT (RFC 8441) pass, which a layer above it hides. The connection's task drives the
//! socket, starts streams, and ends what is idle, unfinished or flooding. Must not know: what happens to a request (`proxy.rs`).

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body as _;

use super::flood::{Guarded, Watch};
use super::worker::{DRAIN_GRACE, Settings, Worker};
use crate::net::Stream;
use crate::pipeline::exchange;
use witgate_http::body::{Body, Interim};
use witgate_http::error::Kind;
use witgate_http::h2::{Changed, Incoming, Outgoing, Peer};
use witgate_http::semantics::fields::check_http2;
use witgate_http::throughput::{Demand, Timer};
use witgate_runtime::exchange::{Client, Upgrade};

const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What the library may hold of answers to one stream before the client takes them.
const SEND_BUFFER_BYTES: usize = 16 << 10;
/// To tell a client why it is cut.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a connection to its end. `input` was read already.
pub(super) async fn serve(worker: &Worker, io: Stream, input: BytesMut, client: &Arc<Client>) {
    let settings = worker.settings();
    let (io, watch) = Guarded::new(io, input, settings.send);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(settings.streams)
        .max_header_list_size(u32::try_from(settings.head.head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .enable_connect_protocol();
    let handshake = tokio::time::timeout(settings.timeouts.head, builder.handshake::<_, Bytes>(io));
    let Ok(Ok(mut connection)) = handshake.await else { return };
    let streams = Streams::default();
    let mut timer = Timer::default();
    let mut drain = pin!(worker.drained());
    let mut drained_at = None;
    poll_fn(|context| {
        while let Poll::Ready(accepted) = connection.poll_accept(context) {
            match accepted {
                Some(Ok((request, respond))) => {
                    let stream = serve_stream(worker.clone(), client.clone(), settings, request, respond);
                    let counted = streams.begin();
                    tokio::task::spawn_local(async move {
                        stream.await;
                        drop(counted);
                    });
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, client = %client.address, "an HTTP/2 connection ended");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
        if watch.borrow().is_flooded {
            return Poll::Ready(());
        }
        if drained_at.is_none() && drain.as_mut().poll(context).is_ready() {
            drained_at = Some(Instant::now());
            connection.graceful_shutdown();
            // The GOAWAY must go out now, not at the next frame.
            context.waker().wake_by_ref();
        }
        poll_overdue(&watch.borrow(), &streams, &settings, drained_at, &mut timer, context)
    })
    .await;
    let flooded = watch.borrow().is_flooded;
    farewell(connection, flooded).await;
}

/// Ready when nothing more is to be expected of this client: an unfinished frame is too old, or no stream has been open for too long.
fn poll_overdue(
    watch: &Watch,
    streams: &Streams,
    settings: &Settings,
    drained_at: Option<Instant>,
    timer: &mut Timer,
    context: &mut Context<'_>,
) -> Poll<()> {
    let waits = &settings.timeouts;
    let idle = (streams.open() == 0).then(|| {
        let idle = streams.idle_since() + waits.idle;
        drained_at.map_or(idle, |drained| idle.min(drained.max(streams.idle_since()) + DRAIN_GRACE))
    });
    let unfinished = watch.unfinished_since().map(|since| since + waits.head);
    let deadline = match (idle, unfinished) {
        (Some(idle), Some(unfinished)) => idle.min(unfinished),
        (Some(one), None) | (None, Some(one)) => one,
        // Streams are open and every frame is whole: look again later, since a stream's end does not wake this task.
        (None, None) => Instant::now() + waits.head.min(waits.idle),
    };
    match timer.poll_until(context, deadline) {
        Poll::Ready(()) if idle.is_none() && unfinished.is_none() => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        overdue => overdue,
    }
}

/// Says GOAWAY and gives it a moment to leave.
async fn farewell(mut connection: Connection<Guarded, Bytes>, flooded: bool) {
    connection.abrupt_shutdown(if flooded { Reason::ENHANCE_YOUR_CALM } else { Reason::NO_ERROR });
    // However it ends, the connection is over.
    let _ = tokio::time::timeout(FAREWELL, poll_fn(|context| connection.poll_closed(context))).await;
}

/// Streams that are not finished.
#[derive(Default, Clone)]
struct Streams(Rc<(Cell<usize>, Cell<Option<Instant>>)>);

impl Streams {
    fn begin(&self) -> Counted {
        self.0.0.set(self.0.0.get() + 1);
        Counted(self.clone())
    }

    fn open(&self) -> usize {
        self.0.0.get()
    }

    /// When the last one ended, or this was first asked.
    fn idle_since(&self) -> Instant {
        let since = self.0.1.get().unwrap_or_else(Instant::now);
        self.0.1.set(Some(since));
        since
    }
}

struct Counted(Streams);

impl Drop for Counted {
    fn drop(&mut self) {
        let (open, since) = &*self.0.0;
        open.set(open.get() - 1);
        since.set(Some(Instant::now()));
    }
}

async fn serve_stream(
    worker: Worker,
    client: Arc<Client>,
    settings: Settings,
    mut request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    if let Err(why) = check_http2(request.headers()) {
        tracing::debug!(client = %client.address, why, "a malformed request");
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    }
    invite_body(&mut request, &mut respond);
    let peer = |demand| Peer { demand, broken: Kind::ClientGone, slow: Kind::ClientTimeout };
    let (mut sender, mut taker) = (peer(settings.receive), peer(settings.send));
    // A tunnel may be silent for longer than a message.
    let tunnel = Demand { stall: settings.timeouts.tunnel, bytes_per_second: 0, ..settings.receive };
    if *request.method() == Method::CONNECT {
        (sender.demand, taker.demand) = (tunnel, tunnel);
    }
    let is_head = request.method() == Method::HEAD;
    let (respond_early, early) = early_responses();
    let (request, is_tunnel, demand) = take(request, sender);
    let response = {
        let mut exchange = pin!(exchange::handle(&worker.shared, &worker.pools, &client, request, Some(respond_early)));
        let answered = poll_fn(|context| {
            let polled = exchange.as_mut().poll(context);
            for response in early.borrow_mut().drain(..) {
                // A stream that is gone is noticed below.
                let _ = respond.send_informational(response);
            }
            match polled {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                // The client gave the stream up: so does the gateway.
                Poll::Pending => respond.poll_reset(context).map(|_| None),
            }
        });
        answered.await
    };
    let Some(response) = response else { return };
    // Who answers a request that has not ended talks with its client, as in gRPC's streams: either may listen for as long as in a tunnel.
    demand.set(Some(tunnel));
    let has_switched = is_tunnel && response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let (response, body) = give(response, is_tunnel, is_head);
    let has_body = !is_head && !matches!(response.status().as_u16(), 204 | 304) && !body.is_end_stream();
    let Ok(stream) = respond.send_response(response, !has_body) else { return };
    if has_body {
        let mut outgoing = Outgoing::new(body, stream, taker).tunnel(has_switched);
        if let Err(error) = poll_fn(|context| outgoing.poll_send(context)).await {
            tracing::debug!(detail = error.detail, "an answer's body broke off");
        }
    }
}

/// A client that waits for leave to send its body gets it at once: flow control already bounds what it can send unasked. Any other expectation is refused further on.
fn invite_body(request: &mut http::Request<RecvStream>, respond: &mut SendResponse<Bytes>) {
    let waits = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.headers().get(header::EXPECT).is_some_and(waits) {
        request.headers_mut().remove(header::EXPECT);
        let mut leave = http::Response::new(());
        *leave.status_mut() = StatusCode::CONTINUE;
        // A stream that is gone is noticed later.
        let _ = respond.send_informational(leave);
    }
}

type Early = Rc<std::cell::RefCell<Vec<http::Response<()>>>>;

/// Interim responses: gathered while the exchange is polled, sent right after.
fn early_responses() -> (Interim, Early) {
    let early = Early::default();
    let into = early.clone();
    let interim: Interim = Rc::new(move |status, headers| {
        let mut response = http::Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        into.borrow_mut().push(response);
    });
    (interim, early)
}

/// The request as the exchange gets it. An extended CONNECT for a WebSocket becomes the upgrade that it stands for (RFC 8441, section 5); any other stays a CONNECT, which
/// nobody serves.
fn take(request: http::Request<RecvStream>, peer: Peer) -> (http::Request<Body>, bool, Changed) {
    let (mut head, stream) = request.into_parts();
    let incoming = Incoming::new(stream, &head.headers, peer);
    let demand = incoming.changed();
    let body = Body::stream(Box::pin(incoming));
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    let is_tunnel = head.method == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    if is_tunnel {
        head.method = Method::GET;
        head.extensions.insert(Upgrade(HeaderValue::from_static("websocket")));
        head.headers.insert(header::SEC_WEBSOCKET_KEY, websocket_key());
    }
    (http::Request::from_parts(head, body), is_tunnel, demand)
}

/// The key that HTTP/1.1 wants and HTTP/2 has not: 16 bytes by chance in base64, so the last of 22 letters has only two bits (RFC 6455, section 4.1).
fn websocket_key() -> HeaderValue {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key: [u8; 24] = std::array::from_fn(|_| LETTERS[fastrand::usize(..64)]);
    key[21] = b"AQgw"[fastrand::usize(..4)];
    key[22..].copy_from_slice(b"==");
    HeaderValue::from_bytes(&key).unwrap_or_else(|_| HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

/// The response as HTTP/2 has it: 200 opens a tunnel, connections have no fields.
fn give(response: http::Response<Body>, is_tunnel: bool, is_head: bool) -> (http::Response<()>, Body) {
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.status = if is_tunnel { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
        head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        head.headers.remove(header::UPGRADE);
    } else if let Some(length) = body.size_hint().exact()
        && !is_head
        && !matches!(head.status.as_u16(), 204 | 304)
    {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !head.headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(std::time::SystemTime::now()))
    {
        head.headers.insert(header::DATE, date);
    }
    head.headers.remove(header::CONNECTION);
    head.headers.remove(HeaderName::from_static("keep-alive"));
    (http::Response::from_parts(head, ()), body)
}
