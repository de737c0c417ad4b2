//! A response's body on its way from an endpoint. It sends the rest of the request while it is
//! read.
//!
//! A body that is dropped before its end closes the connection, because the next response could not
//! be told from the rest of this one. This module does not know: heads, the pool.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::connection::{Connection, GiveBack, upstream_error};
use super::upload::Upload;
use witgate_http::body::{PolledFrame, PolledPipe, Source};
use witgate_http::error::{Error, Kind};
use witgate_http::h1::Framing;
use witgate_http::h1::incoming::{IncomingBody, ReceiveError};
use witgate_http::throughput::MinRate;

/// How long a tunnel lives once one direction is closed: the client's direction in all, the
/// upstream's direction while it is silent.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// A response's body, with the rest of the request.
pub(super) struct Download {
    connection: Option<Box<Connection>>,
    upload: Option<Upload>,
    body: IncomingBody,
    /// How long the upstream may be silent in the middle of the body. The time that a slow client
    /// takes does not count.
    idle_timeout: Option<Duration>,
    /// Since when only the client's direction of a tunnel is open.
    half_closed_since: Option<Instant>,
    give_back: Option<GiveBack>,
}

impl Download {
    pub(super) fn new(
        connection: Box<Connection>,
        upload: Upload,
        framing: Framing,
        idle_timeout: Option<Duration>,
        give_back: Option<GiveBack>,
    ) -> Self {
        Self {
            connection: Some(connection),
            upload: Some(upload),
            body: IncomingBody::of_response(framing),
            idle_timeout,
            half_closed_since: None,
            give_back,
        }
    }

    /// The response is complete. The connection goes back if the request was sent completely and
    /// the upstream sent nothing after its response.
    pub(super) fn finish(&mut self) {
        let was_sent = self.upload.take().is_none_or(|upload| upload.is_complete());
        let Some(connection) = self.connection.take() else { return };
        if let Some(give_back) = self.give_back.take()
            && was_sent
            && connection.io.input.is_empty()
            && connection.io.output.is_empty()
        {
            give_back(connection);
        }
    }

    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        let (Some(upload), Some(connection)) = (&mut self.upload, &mut self.connection) else { return Ok(()) };
        match upload.poll(connection, context) {
            Poll::Ready(Ok(())) if upload.is_tunnel() => {
                self.upload = None;
                // The client has closed its direction: the upstream gets as long to finish as the
                // client does in the opposite case.
                self.idle_timeout = Some(HALF_CLOSED);
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    /// The error of a body that ends before its end.
    fn broken(&self, error: ReceiveError) -> Error {
        if matches!(error, ReceiveError::TooSlow) {
            let silence = self.idle_timeout.unwrap_or_default();
            let detail = format!("it was silent for {silence:?} in the middle of its response");
            return Error::new(Kind::UpstreamTimeout, detail);
        }
        upstream_error(error, "it closed in the middle of its response")
    }

    /// The upstream has closed its direction of a tunnel; the client's direction goes on.
    fn poll_half_closed(&mut self, since: Instant, context: &mut Context<'_>) -> PolledFrame {
        let Some(connection) = self.connection.as_mut().filter(|_| self.upload.is_some()) else {
            return Poll::Ready(None);
        };
        connection.io.timer.poll_until(context, since + HALF_CLOSED).map(|()| None)
    }
}

impl Source for Download {
    fn poll_pipe(self: Pin<&mut Self>, context: &mut Context<'_>) -> Option<PolledPipe> {
        let this = self.get_mut();
        if !this.body.can_fill_pipe(&this.connection.as_ref()?.io) {
            return None;
        }
        if let Err(error) = this.poll_upload(context) {
            return Some(Poll::Ready(Err(error)));
        }
        let idle_timeout = this.idle_timeout;
        let polled = this.body.poll_pipe(&mut this.connection.as_mut()?.io, context, |receiving| {
            idle_timeout.map(|stall| receiving.deadline(&MinRate::stall_only(stall)))
        })?;
        if this.body.is_done() {
            this.finish();
        }
        Some(polled.map_err(|error| this.broken(error)))
    }

    fn can_have_trailers(&self) -> bool {
        self.body.can_have_trailers()
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let this = self.get_mut();
        if let Err(error) = this.poll_upload(context) {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(since) = this.half_closed_since {
            return this.poll_half_closed(since, context);
        }
        let Some(connection) = &mut this.connection else { return Poll::Ready(None) };
        let idle_timeout = this.idle_timeout;
        let received = ready!(this.body.poll_frame(&mut connection.io, context, |receiving| {
            idle_timeout.map(|stall| receiving.deadline(&MinRate::stall_only(stall)))
        }));
        match received {
            Ok(None) if this.upload.as_ref().is_some_and(Upload::is_tunnel) => {
                this.half_closed_since = Some(Instant::now());
                // Trailers end this direction, but not the body.
                Poll::Ready(Some(Ok(Frame::trailers(http::HeaderMap::new()))))
            }
            Ok(frame) => {
                if this.body.is_done() {
                    this.finish();
                }
                Poll::Ready(frame.map(Ok))
            }
            Err(error) => Poll::Ready(Some(Err(this.broken(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.half_closed_since.is_none() && self.body.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        if self.half_closed_since.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}
