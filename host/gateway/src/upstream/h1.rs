//! HTTP/1.1 to an endpoint: one exchange at a time over a connection that is no task of its own.
//!
//! The exchange's task itself writes the request and reads the response, so that a request costs no channel and no wake-up of another task. Sending goes on while the response
//! arrives, for an upstream may answer before it has read all. A response is judged as strictly as a request is: what could be read in two ways ends the
//! exchange. Must not know: which endpoint, retries, routes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::AsyncWrite as _;

use super::connect::Secured;
use super::endpoint::Counted;
use super::interim::Interims;
use crate::net::Stream;
use witgate_http::body::{Body, Interim};
use witgate_http::error::{Error, Kind};
use witgate_http::h1::chunked::{Decoder, Step};
use witgate_http::h1::head::{Limits, ResponseHead, Scan, keeps_alive, response, response_framing};
use witgate_http::h1::outgoing::{Gathered, Outgoing};
use witgate_http::h1::{Framing, encode};
use witgate_http::throughput::Timer;
use witgate_runtime::exchange::Upgrade;

/// Bounds on a response's head.
const HEAD: Limits = Limits { head_bytes: 64 << 10, target_bytes: 64 << 10, fields: 200 };
/// How long a body is held back for an upstream that says nothing to `expect: 100-continue` (RFC 9110, section 10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);
/// How long a tunnel lives on whose one side has said its last: the client in all, the upstream while it is silent.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// A connection to an endpoint, idle or in the one exchange that owns it.
pub(super) struct Connection {
    io: Stream,
    input: BytesMut,
    output: BytesMut,
    timer: Timer,
    pub(super) secured: Secured,
    /// Counts it for its endpoint while it lives.
    _counted: Counted,
}

/// An exchange that failed before the response's head.
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether a byte of the response had come: the request was then surely seen.
    pub(super) answered: bool,
    /// Whether a byte of the request was written.
    pub(super) sent: bool,
    /// The request as it was, if its body is in hand.
    pub(super) request: Option<http::Request<Body>>,
}

/// Takes the connection back once the response was read to its end and another exchange may follow.
pub(super) type GiveBack = Box<dyn FnOnce(Box<Connection>)>;

impl Connection {
    pub(super) fn new(io: Stream, secured: Secured, counted: Counted) -> Self {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { io, input, output, timer: Timer::default(), secured, _counted: counted }
    }

    /// Whether the upstream has neither closed nor said anything while the connection was idle.
    pub(super) fn is_open(&mut self) -> bool {
        self.input.is_empty() && (self.io.is_plain() || self.has_nothing_decrypted()) && self.io.is_silent()
    }

    /// Whether TLS, too, holds nothing that the upstream said.
    fn has_nothing_decrypted(&mut self) -> bool {
        let context = &mut Context::from_waker(std::task::Waker::noop());
        self.io.poll_fill(context, &mut self.input).is_pending()
    }

    /// Sends what was gathered, then `large`.
    fn poll_write(&mut self, context: &mut Context<'_>, large: &mut Bytes, sent: &mut bool) -> Poll<io::Result<()>> {
        while !self.output.is_empty() || !large.is_empty() {
            let slices = [io::IoSlice::new(&self.output), io::IoSlice::new(large)];
            let io = Pin::new(&mut self.io);
            let written = match (self.output.is_empty(), large.is_empty()) {
                (false, true) => io.poll_write(context, &self.output),
                (true, _) => io.poll_write(context, large),
                (false, false) => io.poll_write_vectored(context, &slices),
            };
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *sent = true;
            let own = written.min(self.output.len());
            self.output.advance(own);
            large.advance(written - own);
        }
        Pin::new(&mut self.io).poll_flush(context)
    }
}

/// A request on its way.
struct Upload {
    outgoing: Outgoing,
    /// Until when the body is held back.
    held: Option<Instant>,
    /// The protocol changes first, if it does.
    awaits_switch: bool,
    /// Writing failed: the upstream may have answered all the same.
    is_broken: bool,
    /// The end of this side is to be said: after the last byte of a tunnel.
    is_tunnel: bool,
    /// A byte was written.
    sent: bool,
    /// All was written, and TLS holds nothing of it back.
    is_done: bool,
}

impl Upload {
    /// Ready once all was sent, or nothing more can be. The error is the body's own: the client's fault.
    fn poll(&mut self, connection: &mut Connection, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.is_broken || self.is_done {
                return Poll::Ready(Ok(()));
            }
            if let Some(until) = self.held
                && connection.timer.poll_until(context, until).is_ready()
            {
                self.held = None;
            }
            let gathered = if self.held.is_some() || self.awaits_switch {
                Gathered::Waits
            } else {
                self.outgoing.gather(context, &mut connection.output)?
            };
            match connection.poll_write(context, &mut self.outgoing.large, &mut self.sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "an upstream took no more of a request");
                    self.is_broken = true;
                }
                Poll::Pending => return Poll::Pending,
            }
            match gathered {
                Gathered::Waits => return Poll::Pending,
                Gathered::More => {}
                Gathered::End => {
                    if self.is_tunnel {
                        let _ = Pin::new(&mut connection.io).poll_shutdown(context);
                    }
                    self.is_done = true;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Sends `request` and waits for the response's head; its body streams, and gives the connection back at its end. `body_idle` is how long the upstream may be silent in the middle
/// of a body. How long the head may take is for the caller to say. `kept` says that the connection was idle before.
pub(super) async fn exchange(
    mut connection: Box<Connection>,
    kept: bool,
    request: http::Request<Body>,
    interim: Option<&Interim>,
    body_idle: Option<Duration>,
    give_back: GiveBack,
) -> Result<http::Response<Body>, Failed> {
    let (mut request, body) = request.into_parts();
    let upgrade = request.extensions.get::<Upgrade>().cloned();
    let again = body.replay();
    let mut upload = begin(&mut connection, &mut request, body, upgrade.as_ref());
    let (mut answered, mut interims) = (false, Interims::new(interim));
    let received = poll_fn(|context| {
        if let Poll::Ready(Err(error)) = upload.poll(&mut connection, context) {
            return Poll::Ready(Err(error));
        }
        let head = ready!(poll_head(&mut connection, &mut upload, &mut interims, &mut answered, context));
        Poll::Ready(head.and_then(|head| {
            response_framing(&head, &request.method).map_err(as_upstream).map(|framing| (head, framing))
        }))
    })
    .await;
    let switched = received.and_then(|(head, framing)| {
        if kept && says_idle(&head) && again.is_some() && request.method.is_idempotent() {
            answered = false;
            return Err(Error::new(Kind::UpstreamClosed, "it said 408 while the request was on its way"));
        }
        let framing = switched(&head, framing, upgrade.as_ref(), &mut upload)?;
        Ok((head, framing))
    });
    let (head, framing) = match switched {
        Ok(received) => received,
        Err(error) => {
            let request = again.map(|body| http::Request::from_parts(request, body));
            return Err(Failed { error, answered, sent: upload.sent, request });
        }
    };
    if upload.held.take().is_some() {
        // It answered without asking for the body, so nobody asks the client for it (RFC 9110, section 10.1.1).
        upload.is_broken = true;
    }
    let reusable = keeps_alive(&head.headers, head.version) && head.status != StatusCode::SWITCHING_PROTOCOLS;
    let mut download = Download {
        connection: Some(connection),
        upload: Some(upload),
        left: framing.into(),
        // How long a tunnel may be silent is for the client's side to say, which sees both directions.
        body_idle: body_idle.filter(|_| head.status != StatusCode::SWITCHING_PROTOCOLS),
        waiting: None,
        give_back: Some(give_back).filter(|_| reusable && framing != Framing::UntilClose),
    };
    let body = if framing == Framing::None {
        download.finish();
        Body::empty()
    } else {
        Body::stream(Box::pin(download))
    };
    let mut response = http::Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// Whether a response is a farewell to an idle connection rather than an answer: a request that crossed it may be sent once more (RFC 9110, section 15.5.9).
fn says_idle(head: &ResponseHead) -> bool {
    head.status == StatusCode::REQUEST_TIMEOUT && !keeps_alive(&head.headers, head.version)
}

/// Writes the request's head, and what of the body is in hand.
fn begin(
    connection: &mut Connection,
    head: &mut http::request::Parts,
    body: Body,
    upgrade: Option<&Upgrade>,
) -> Upload {
    let wants_continue = head.headers.contains_key(header::EXPECT);
    let framing = match (upgrade, body.size_hint().exact()) {
        (Some(_), _) => Framing::None,
        (None, Some(0)) if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => Framing::Length(0),
        (None, Some(0)) => Framing::None,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::Chunked,
    };
    let held = wants_continue && body.in_hand().is_none();
    if wants_continue && !held {
        // The body is here: there is nothing to wait for.
        head.headers.remove(header::EXPECT);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let out = &mut connection.output;
    encode::request(out, &head.method, target, &head.headers, framing);
    if let Some(Upgrade(protocol)) = upgrade {
        encode::field(out, "connection", "upgrade");
        encode::field(out, "upgrade", protocol.to_str().unwrap_or_default());
    }
    encode::end(out);
    let outgoing = if framing == Framing::None && upgrade.is_none() {
        Outgoing::none()
    } else {
        Outgoing::new(body, framing == Framing::Chunked, true)
    };
    Upload {
        outgoing,
        held: held.then(|| Instant::now() + CONTINUE_WAIT),
        awaits_switch: upgrade.is_some(),
        is_broken: false,
        is_tunnel: upgrade.is_some(),
        sent: false,
        is_done: false,
    }
}

/// The head of the final response. Interim ones are passed on, `100` starts the body.
fn poll_head(
    connection: &mut Connection,
    upload: &mut Upload,
    interims: &mut Interims<'_>,
    answered: &mut bool,
    context: &mut Context<'_>,
) -> Poll<Result<ResponseHead, Error>> {
    loop {
        // Scanned from its start each time: nearly every head comes whole.
        if let Some(length) = Scan::default().find(&mut connection.input, &HEAD).map_err(as_upstream)? {
            let head = response(connection.input.split_to(length).freeze()).map_err(as_upstream)?;
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(head));
            }
            interims.pass(head.status, head.headers)?;
            if head.status == StatusCode::CONTINUE {
                upload.held = None;
                context.waker().wake_by_ref();
            }
            continue;
        }
        match ready!(connection.io.poll_fill(context, &mut connection.input)) {
            Ok(0) => return Poll::Ready(Err(Error::new(Kind::UpstreamClosed, "it closed before its response"))),
            Ok(_) => *answered = true,
            Err(error) => return Poll::Ready(Err(Error::new(Kind::UpstreamClosed, error.to_string()))),
        }
    }
}

/// How the body ends once a change of protocol is looked at; an error where the upstream changed it unasked.
fn switched(
    head: &ResponseHead,
    framing: Framing,
    upgrade: Option<&Upgrade>,
    upload: &mut Upload,
) -> Result<Framing, Error> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        if upgrade.is_some() {
            // The protocol stays: what the client may send is its next request, not this one's body.
            upload.outgoing = Outgoing::none();
            upload.is_tunnel = false;
            upload.awaits_switch = false;
            upload.is_done = true;
        }
        return Ok(framing);
    }
    let same = |protocol: &HeaderValue| {
        let asked = upgrade.map(|Upgrade(asked)| asked.as_bytes()).unwrap_or_default();
        !asked.is_empty() && protocol.as_bytes().eq_ignore_ascii_case(asked)
    };
    if !head.headers.get(header::UPGRADE).is_some_and(same) || head.version != Version::HTTP_11 {
        return Err(Error::new(Kind::UpstreamProtocol, "it changed the protocol, which nobody had asked for"));
    }
    upload.awaits_switch = false;
    Ok(Framing::UntilClose)
}

/// What is left of a response's body.
enum Left {
    Nothing,
    Bytes(u64),
    Chunks(Decoder),
    UntilClose,
    /// Of a tunnel: only what the client sends.
    Tunnel,
}

impl From<Framing> for Left {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Nothing,
            Framing::Length(length) => Self::Bytes(length),
            Framing::Chunked => Self::Chunks(Decoder::new()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

/// A response's body, with the rest of the request that is still being sent. Dropped before its end, the connection is closed.
struct Download {
    connection: Option<Box<Connection>>,
    upload: Option<Upload>,
    left: Left,
    body_idle: Option<Duration>,
    /// Since when the upstream is waited for: the time that a slow client takes is not the upstream's.
    waiting: Option<Instant>,
    give_back: Option<GiveBack>,
}

impl Download {
    /// The response is whole. The connection goes back if nothing is left of the request, and nothing came that nobody had asked for.
    fn finish(&mut self) {
        self.left = Left::Nothing;
        let sent = self.upload.take().is_none_or(|upload| upload.is_done && !upload.is_broken);
        let Some(connection) = self.connection.take() else { return };
        if let Some(give_back) = self.give_back.take()
            && sent
            && connection.input.is_empty()
            && connection.output.is_empty()
        {
            give_back(connection);
        }
    }

    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        let (Some(upload), Some(connection)) = (&mut self.upload, &mut self.connection) else { return Ok(()) };
        match upload.poll(connection, context) {
            Poll::Ready(Ok(())) if upload.is_tunnel => {
                self.upload = None;
                // The client's side no longer waits for anything: the upstream has as long as the client has in the opposite case.
                self.body_idle = Some(HALF_CLOSED);
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Step, Error> {
        let Some(connection) = &mut self.connection else { return Ok(Step::End(http::HeaderMap::new())) };
        let input = &mut connection.input;
        match &mut self.left {
            Left::Nothing | Left::Tunnel => Ok(Step::End(http::HeaderMap::new())),
            Left::Chunks(decoder) => decoder.step(input).map_err(as_upstream),
            Left::Bytes(_) | Left::UntilClose if input.is_empty() => Ok(Step::More),
            Left::UntilClose => Ok(Step::Data(input.split().freeze())),
            Left::Bytes(left) => {
                let take = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                let data = input.split_to(take).freeze();
                if *left == 0 {
                    self.finish();
                }
                Ok(Step::Data(data))
            }
        }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Err(error) = this.poll_upload(context) {
            return Poll::Ready(Some(Err(error)));
        }
        if matches!(this.left, Left::Tunnel) {
            let Some(connection) = this.connection.as_mut().filter(|_| this.upload.is_some()) else {
                return Poll::Ready(None);
            };
            let since = *this.waiting.get_or_insert_with(Instant::now);
            return connection.timer.poll_until(context, since + HALF_CLOSED).map(|()| None);
        }
        loop {
            match this.step() {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Step::End(trailers)) => {
                    this.finish();
                    return Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))));
                }
                Ok(Step::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let Some(connection) = &mut this.connection else { return Poll::Ready(None) };
            match connection.io.poll_fill(context, &mut connection.input) {
                Poll::Ready(Ok(0)) if matches!(this.left, Left::UntilClose) => {
                    if this.upload.as_ref().is_some_and(|upload| upload.is_tunnel) {
                        // This direction of the tunnel is closed, the other goes on.
                        this.left = Left::Tunnel;
                        this.waiting = Some(Instant::now());
                        return Poll::Ready(Some(Ok(Frame::trailers(http::HeaderMap::new()))));
                    }
                    this.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    let error = Error::new(Kind::UpstreamClosed, "it closed in the middle of its response");
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Ok(_)) => this.waiting = None,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Some(Err(Error::new(Kind::UpstreamClosed, error.to_string()))));
                }
                Poll::Pending => {
                    let Some(body_idle) = this.body_idle else { return Poll::Pending };
                    let since = *this.waiting.get_or_insert_with(Instant::now);
                    ready!(connection.timer.poll_until(context, since + body_idle));
                    let detail = format!("it was silent for {body_idle:?} in the middle of its response");
                    return Poll::Ready(Some(Err(Error::new(Kind::UpstreamTimeout, detail))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Left::Nothing => SizeHint::with_exact(0),
            Left::Bytes(left) => SizeHint::with_exact(left),
            Left::Chunks(_) | Left::UntilClose | Left::Tunnel => SizeHint::default(),
        }
    }
}

/// What was wrong with a message of the upstream is the upstream's fault.
fn as_upstream(error: Error) -> Error {
    Error::new(Kind::UpstreamProtocol, error.detail)
}
