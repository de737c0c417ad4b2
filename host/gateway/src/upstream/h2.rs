//! HTTP/2 to an endpoint: one connection for all requests of a thread, one stream for each request.
//!
//! The connection runs as a task of its own, because no exchange owns it. A request that the
//! upstream did not process (REFUSED_STREAM, or a GOAWAY that names an earlier stream; RFC 9113,
//! section 8.7) may be sent again whatever its method is. This module does not know: balancing,
//! retries, routes.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme, Uri};
use http::{StatusCode, Version, uri};
use http_body::{Body as _, Frame, SizeHint};

use super::connect::TlsConfig;
use super::endpoint::ConnectionPermit;
use super::interim::InterimResponses;
use crate::net::Stream;
use witgate_http::body::{Body, InterimSink};
use witgate_http::error::{Error, Kind};
use witgate_http::h2::{Incoming, Outgoing, PeerPolicy};
use witgate_http::semantics::fields::check_http2;
use witgate_http::throughput::MinRate;
use witgate_runtime::exchange::Upgrade;

const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const HEADER_BYTES_MAX: u32 = 64 << 10;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// A connection to an endpoint. Clones share it.
#[derive(Clone)]
pub(super) struct Session {
    send: SendRequest<Bytes>,
    pub(super) tls_config: TlsConfig,
    state: Rc<SessionState>,
}

struct SessionState {
    is_open: Cell<bool>,
    used: Cell<Instant>,
}

impl Session {
    /// Whether its task still runs.
    pub(super) fn is_open(&self) -> bool {
        self.state.is_open.get()
    }

    /// Whether it is open, and either in use or idle for less than `idle`.
    pub(super) fn is_kept(&self, idle: Duration) -> bool {
        // Its task and the pool hold one reference each, and each exchange holds one more.
        let in_use = Rc::strong_count(&self.state) > 2;
        self.is_open() && (in_use || self.state.used.get().elapsed() < idle)
    }

    fn scheme(&self) -> Scheme {
        if self.tls_config.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Waits until another stream may begin. Fails if the connection takes no more requests.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        let ready = poll_fn(|context| self.send.poll_ready(context)).await;
        ready.map_err(|error| Error::new(Kind::UpstreamClosed, error.to_string()))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.state, &other.state)
    }
}

/// An exchange that failed before the response's head arrived.
pub(super) struct Failed {
    pub(super) error: Error,
    /// The upstream certainly did not process the request.
    pub(super) unprocessed: bool,
    /// The connection takes no more requests.
    pub(super) is_closed: bool,
}

/// Starts HTTP/2 on a new connection. `permit` counts the connection while it lives.
pub(super) async fn open(
    io: Stream,
    tls_config: TlsConfig,
    permit: Option<ConnectionPermit>,
) -> Result<Session, Error> {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .enable_push(false);
    let failed = |why: String| Error::new(Kind::UpstreamProtocol, format!("no HTTP/2: {why}"));
    let (send, connection) = tokio::time::timeout(HANDSHAKE_TIME_MAX, builder.handshake(io))
        .await
        .map_err(|_| failed("its SETTINGS frame did not arrive in time".into()))?
        .map_err(|error| failed(error.to_string()))?;
    let state = Rc::new(SessionState { is_open: Cell::new(true), used: Cell::new(Instant::now()) });
    let task_state = state.clone();
    tokio::task::spawn_local(async move {
        let _counted = permit;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/2 connection to an upstream ended");
        }
        task_state.is_open.set(false);
    });
    Ok(Session { send, tls_config, state })
}

/// Sends `request` on a new stream and waits for the response's head. The session must be ready.
/// The rest of the request is sent while the response's body is read.
pub(super) async fn exchange(
    session: &mut Session,
    request: http::Request<Body>,
    interim: Option<&InterimSink>,
    body_idle: Duration,
) -> Result<http::Response<Body>, Failed> {
    session.state.used.set(Instant::now());
    let peer = PeerPolicy {
        min_rate: MinRate::stall_only(body_idle),
        broken: Kind::UpstreamClosed,
        slow: Kind::UpstreamTimeout,
    };
    if request.extensions().get::<Upgrade>().is_some() {
        let error = Error::new(Kind::NotImplemented, "an upgrade cannot be sent to an upstream over HTTP/2");
        return Err(Failed { error, unprocessed: false, is_closed: false });
    }
    let (request, body) = http2_head(request, session.scheme()).map_err(|error| Failed {
        error,
        unprocessed: false,
        is_closed: false,
    })?;
    let ended = body.is_end_stream();
    let (mut response, stream) = session.send.send_request(request, ended).map_err(|error| unsent(&error))?;
    let mut upload = (!ended).then(|| Outgoing::new(body, stream, peer));
    let mut interims = InterimResponses::new(interim);
    let received = poll_fn(|context| poll_response(&mut response, &mut upload, &mut interims, context)).await?;
    let (mut head, stream) = received.into_parts();
    check_http2(&head.headers).map_err(|why| Failed {
        error: Error::new(Kind::UpstreamProtocol, why),
        unprocessed: false,
        is_closed: false,
    })?;
    head.version = Version::HTTP_2;
    let incoming = Incoming::new(stream, &head.headers, peer);
    let body = if incoming.is_end_stream() {
        Body::empty()
    } else {
        Body::stream(Box::pin(Download { incoming, upload, session: session.clone() }))
    };
    Ok(http::Response::from_parts(head, body))
}

fn poll_response(
    response: &mut ResponseFuture,
    upload: &mut Option<Outgoing>,
    interims: &mut InterimResponses<'_>,
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
                return Poll::Ready(Err(Failed { error, unprocessed: false, is_closed: false }));
            }
            Poll::Pending => {}
        }
    }
    while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
        let (head, ()) = interim.into_parts();
        let passed = match head.status {
            // HTTP/2 has no 101 (RFC 9113, section 8.6). An HTTP/1.1 client would take it for a
            // protocol switch.
            StatusCode::SWITCHING_PROTOCOLS => Err(Error::new(Kind::UpstreamProtocol, "it sends 101 over HTTP/2")),
            status => interims.forward(status, head.headers),
        };
        passed.map_err(|error| Failed { error, unprocessed: false, is_closed: false })?;
    }
    Pin::new(response).poll(context).map_err(|error| {
        let unprocessed = error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote());
        let kind = if error.is_io() || error.is_go_away() || unprocessed {
            Kind::UpstreamClosed
        } else {
            Kind::UpstreamProtocol
        };
        Failed {
            error: Error::new(kind, error.to_string()),
            unprocessed,
            is_closed: error.is_io() || error.is_go_away(),
        }
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
    Failed { error: Error::new(Kind::UpstreamClosed, error.to_string()), unprocessed: true, is_closed: true }
}

/// A response's body, with the rest of the request that is still being sent. Dropping it before its
/// end resets the stream.
struct Download {
    incoming: Incoming,
    upload: Option<Outgoing>,
    session: Session,
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(upload) = &mut this.upload {
            match upload.poll_send(context) {
                Poll::Ready(Err(error)) if !matches!(error.kind, Kind::UpstreamClosed | Kind::UpstreamTimeout) => {
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(_) => this.upload = None,
                Poll::Pending => {}
            }
        }
        Pin::new(&mut this.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.session.state.used.set(Instant::now());
    }
}
