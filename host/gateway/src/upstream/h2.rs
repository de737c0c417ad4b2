//! HTTP/2 to an endpoint: a few connections for all requests of a thread, one stream for each
//! request.
//!
//! A request that the upstream did not process (REFUSED_STREAM, or a GOAWAY that names an earlier
//! stream; RFC 9113, section 8.7) may be sent again whatever its method is. A WebSocket travels
//! over one stream (RFC 8441), if the upstream's SETTINGS allow it. This module does not know:
//! balancing, retries, routes.

mod keep_alive;
mod session;
mod sessions;
mod websocket;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme, Uri};
use http::{StatusCode, Version, uri};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::interim::InterimResponses;
pub(super) use session::{StreamSlot, open};
pub(super) use sessions::{Next, Sessions};
use websocket::Tunnel;
use witgate_http::body::{Body, InterimSink, PolledFrame, Source};
use witgate_http::error::{Error, Kind};
use witgate_http::h2::{Incoming, IncomingState, Outgoing, PeerPolicy, StreamCounts};
use witgate_http::semantics::fields::check_http2;
use witgate_http::throughput::{MinRate, Timer};
use witgate_runtime::exchange::Upgrade;

/// The stall limit of a tunnel. The client's side decides how long a tunnel may be silent, because
/// it sees both directions.
const TUNNEL_STALL: Duration = Duration::from_secs(24 * 3600);
/// How long a tunnel lives once one direction is closed: the client's direction in all, the
/// upstream's direction while it is silent.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// An exchange that failed before the response's head arrived.
pub(super) struct Failed {
    pub(super) error: Error,
    /// The upstream certainly did not process the request.
    pub(super) unprocessed: bool,
}

/// Sends `request` on a new stream and waits for the response's head. The rest of the request is
/// sent while the response's body is read.
pub(super) async fn exchange(
    mut slot: StreamSlot,
    mut request: http::Request<Body>,
    interim: Option<&InterimSink>,
    body_idle: Duration,
) -> Result<http::Response<Body>, Failed> {
    let tunnel = match request.extensions_mut().remove::<Upgrade>() {
        Some(upgrade) => Some(Tunnel::new(&upgrade, &slot, &mut request).map_err(failed)?),
        None => None,
    };
    let stall = if tunnel.is_some() { TUNNEL_STALL } else { body_idle };
    let peer =
        PeerPolicy { min_rate: MinRate::stall_only(stall), broken: Kind::UpstreamClosed, slow: Kind::UpstreamTimeout };
    let (mut request, body) = http2_head(request, slot.scheme()).map_err(failed)?;
    if tunnel.is_some() {
        websocket::into_connect(&mut request);
    }
    let ended = tunnel.is_none() && body.is_end_stream();
    let (mut response, stream) = slot.send.send_request(request, ended).map_err(|error| unsent(&error))?;
    let counts = slot.field_counts(stream.stream_id());
    // What a client sends into a tunnel waits until the upstream has agreed to it.
    let (mut upload, waiting) = match (&tunnel, ended) {
        (Some(_), _) => (None, Some((body, stream))),
        (None, false) => (Some(Outgoing::new(body, stream, peer)), None),
        (None, true) => (None, None),
    };
    let mut interims = InterimResponses::new(interim);
    let received =
        poll_fn(|context| poll_response(&mut response, &mut upload, (&mut interims, &counts), context)).await?;
    slot.answered();
    let (mut head, stream) = received.into_parts();
    check_head(&head.headers, &counts)?;
    if head.status.as_u16() > 599 {
        return Err(failed(Error::new(Kind::UpstreamProtocol, "its status is not 100 to 599")));
    }
    head.version = Version::HTTP_2;
    let is_tunnel = tunnel.is_some_and(|tunnel| tunnel.begin(&mut head));
    match waiting {
        Some((body, stream)) if is_tunnel => upload = Some(Outgoing::new(body, stream, peer)),
        // An error means that the stream has ended.
        Some((_, mut stream)) => drop(stream.send_data(Bytes::new(), true)),
        None => {}
    }
    let incoming = Incoming::new(stream, &head.headers, peer, counts);
    let body = if incoming.is_end_stream() && !is_tunnel {
        Body::empty()
    } else {
        Body::stream(Box::pin(Download::new(incoming, upload, is_tunnel, slot)))
    };
    let has_no_content = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if has_no_content { read_no_content(body).await.map_err(failed)? } else { body };
    Ok(http::Response::from_parts(head, body))
}

/// Waits for the end of a response that can have no content (RFC 9110, section 6.4.1).
async fn read_no_content(mut body: Body) -> Result<Body, Error> {
    while let Some(frame) = body.frame().await {
        if frame?.data_ref().is_some_and(|data| !data.is_empty()) {
            return Err(Error::new(Kind::UpstreamProtocol, "a response with this status has no content"));
        }
    }
    Ok(Body::empty())
}

/// Refuses a malformed head.
fn check_head(headers: &http::HeaderMap, counts: &StreamCounts) -> Result<(), Failed> {
    // The status is a field of the block, too.
    let checked = counts.compare(headers.len() + 1).and_then(|()| check_http2(headers));
    checked.map_err(|why| failed(Error::new(Kind::UpstreamProtocol, why)))
}

/// A failure that says nothing about the connection.
fn failed(error: Error) -> Failed {
    Failed { error, unprocessed: false }
}

fn poll_response(
    response: &mut ResponseFuture,
    upload: &mut Option<Outgoing>,
    (interims, counts): (&mut InterimResponses<'_>, &StreamCounts),
    context: &mut Context<'_>,
) -> Poll<Result<http::Response<RecvStream>, Failed>> {
    if let Some(outgoing) = upload {
        match outgoing.poll_send(context) {
            Poll::Ready(Ok(())) => *upload = None,
            // The upstream wants no more of the body. Its response, if there is one, says why.
            Poll::Ready(Err(error)) if matches!(error.kind, Kind::UpstreamClosed | Kind::UpstreamTimeout) => {
                *upload = None
            }
            Poll::Ready(Err(error)) => {
                return Poll::Ready(Err(failed(error)));
            }
            Poll::Pending => {}
        }
    }
    while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
        let (head, ()) = interim.into_parts();
        check_head(&head.headers, counts)?;
        let passed = match head.status {
            // HTTP/2 has no 101 (RFC 9113, section 8.6). An HTTP/1.1 client would take it for a
            // protocol switch.
            StatusCode::SWITCHING_PROTOCOLS => Err(Error::new(Kind::UpstreamProtocol, "it sends 101 over HTTP/2")),
            status => interims.forward(status, head.headers),
        };
        passed.map_err(failed)?;
    }
    Pin::new(response).poll(context).map_err(|error| {
        let unprocessed = error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote());
        let kind = if error.is_io() || error.is_go_away() || unprocessed {
            Kind::UpstreamClosed
        } else {
            Kind::UpstreamProtocol
        };
        Failed { error: Error::new(kind, error.to_string()), unprocessed }
    })
}

/// Splits a request into its HTTP/2 head, whose authority is the `Host` field, and its body.
fn http2_head(request: http::Request<Body>, scheme: Scheme) -> Result<(http::Request<()>, Body), Error> {
    let (mut head, body) = request.into_parts();
    let host = head.headers.remove(header::HOST);
    let authority = host.as_ref().map(HeaderValue::as_bytes).filter(|host| !host.is_empty()).unwrap_or(b"localhost");
    let bad = |_| Error::new(Kind::BadRequest, "its host or path cannot be sent over HTTP/2");
    let mut parts = uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(Authority::try_from(authority).map_err(bad)?);
    parts.path_and_query = head.uri.path_and_query().cloned();
    head.uri =
        Uri::from_parts(parts).map_err(|_| Error::new(Kind::BadRequest, "its path cannot be sent over HTTP/2"))?;
    head.version = Version::HTTP_2;
    head.headers.remove(header::EXPECT);
    // The gateway accepts and forwards trailers (RFC 9110, section 10.1.4). gRPC servers require
    // the field.
    head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Ok((http::Request::from_parts(head, ()), body))
}

fn unsent(error: &h2::Error) -> Failed {
    Failed { error: Error::new(Kind::UpstreamClosed, error.to_string()), unprocessed: true }
}

/// A response's body, with the rest of the request that is still being sent. Dropping it before its
/// end resets the stream.
struct Download {
    incoming: Incoming,
    upload: Option<Outgoing>,
    is_tunnel: bool,
    state: Rc<IncomingState>,
    /// Since when only the client's direction of a tunnel is open.
    half_closed_since: Option<Instant>,
    timer: Timer,
    slot: StreamSlot,
}

impl Download {
    fn new(incoming: Incoming, upload: Option<Outgoing>, is_tunnel: bool, slot: StreamSlot) -> Self {
        let state = incoming.state();
        Self { incoming, upload, is_tunnel, state, half_closed_since: None, timer: Timer::default(), slot }
    }

    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.poll_send(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) if !matches!(error.kind, Kind::UpstreamClosed | Kind::UpstreamTimeout) => {
                Err(error)
            }
            Poll::Ready(_) => {
                self.upload = None;
                if self.is_tunnel {
                    // The client has closed its direction: the upstream gets as long to finish as
                    // the client does in the opposite case.
                    self.state.min_rate.set(Some(MinRate::stall_only(HALF_CLOSED)));
                }
                Ok(())
            }
        }
    }
}

impl Source for Download {}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let this = self.get_mut();
        if let Err(error) = this.poll_upload(context) {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(since) = this.half_closed_since {
            if this.upload.is_none() {
                return Poll::Ready(None);
            }
            return this.timer.poll_until(context, since + HALF_CLOSED).map(|()| None);
        }
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(context));
        if matches!(frame, Some(Ok(_))) {
            this.slot.answered();
        }
        if frame.is_none() && this.is_tunnel {
            this.half_closed_since = Some(Instant::now());
            // Trailers end this direction, but not the body.
            return Poll::Ready(Some(Ok(Frame::trailers(http::HeaderMap::new()))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        !self.is_tunnel && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_tunnel { SizeHint::default() } else { self.incoming.size_hint() }
    }
}
