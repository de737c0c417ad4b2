//! Receives and sends bodies over HTTP/2, with flow control, trailers and minimum rates.
//!
//! Both sides of the gateway use it: a client's and an upstream's body differ only in the kind of
//! error that they end with. This module does not know: connections, exchanges.

mod field_counts;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap};
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, Source};
use crate::error::{Error, Kind};
use crate::semantics::fields::{check_http2, drop_forbidden_trailers};
use crate::throughput::{MinRate, Throughput, Timer};
pub use field_counts::{SharedCounts, StreamCounts};

/// The minimum rate of a peer, and the kinds of its errors.
#[derive(Clone, Copy)]
pub struct PeerPolicy {
    /// The rate at which the peer must send or take the body.
    pub min_rate: MinRate,
    /// The peer disconnected or sent invalid HTTP.
    pub broken: Kind,
    /// The peer was too slow.
    pub slow: Kind,
}

/// What the task of a stream shares with the body that it gave to an exchange.
#[derive(Default)]
pub struct IncomingState {
    /// Replaces the minimum rate of [`PeerPolicy`] while the body is received.
    pub min_rate: Cell<Option<MinRate>>,
    /// Whether the peer had sent all of the body when it was dropped.
    pub has_ended: Cell<bool>,
    /// Whether the trailers were malformed (RFC 9113, section 8.1).
    pub is_malformed: Cell<bool>,
    /// Whether somebody waited for a part of the body that had not arrived.
    pub is_awaited: Cell<bool>,
}

/// A body that is being received.
pub struct Incoming {
    stream: RecvStream,
    left: Option<u64>,
    peer: PeerPolicy,
    state: Rc<IncomingState>,
    counts: StreamCounts,
    throughput: Throughput,
    timer: Timer,
    data_ended: bool,
}

impl Incoming {
    /// The body of a message with these fields. `counts` tells whether its trailers are complete.
    pub fn new(stream: RecvStream, headers: &HeaderMap, peer: PeerPolicy, counts: StreamCounts) -> Self {
        let left = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let (throughput, timer) = (Throughput::default(), Timer::default());
        Self { stream, left, peer, state: Rc::default(), counts, throughput, timer, data_ended: false }
    }

    /// The state that outlives the body.
    pub fn state(&self) -> Rc<IncomingState> {
        self.state.clone()
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let deadline = self.throughput.deadline(&self.state.min_rate.get().unwrap_or(self.peer.min_rate));
        self.timer.poll_until(context, deadline).map(|()| Error::new(self.peer.slow, "the body came too slowly"))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // The end is visible only behind the data that arrived and was not read.
        let context = &mut Context::from_waker(Waker::noop());
        while matches!(self.stream.poll_data(context), Poll::Ready(Some(Ok(_)))) {}
        self.state.has_ended.set(self.stream.is_end_stream());
    }
}

impl Source for Incoming {}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let broken = |error: h2::Error| Error::new(this.peer.broken, format!("the body ended early: {error}"));
        if !this.data_ended {
            match this.stream.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => {
                    this.throughput.progressed(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    // An error means that the stream has ended; the next poll returns it.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(broken(error)))),
                Poll::Ready(None) => this.data_ended = true,
                Poll::Pending => {
                    this.state.is_awaited.set(true);
                    return this.poll_late(context).map(|error| Some(Err(error)));
                }
            }
        }
        match this.stream.poll_trailers(context) {
            Poll::Ready(Ok(Some(mut trailers))) => {
                if let Err(why) = this.counts.compare(trailers.len()).and_then(|()| check_http2(&trailers)) {
                    this.state.is_malformed.set(true);
                    return Poll::Ready(Some(Err(Error::new(this.peer.broken, why))));
                }
                drop_forbidden_trailers(&mut trailers);
                Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(broken(error)))),
            Poll::Pending => this.poll_late(context).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.stream.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// A body that is being sent. Dropping it before its end resets the stream.
pub struct Outgoing {
    body: Body,
    stream: SendStream<Bytes>,
    ready: Bytes,
    peer: PeerPolicy,
    throughput: Throughput,
    timer: Timer,
    ended: bool,
    /// The body is one direction of a tunnel. It must be polled after its end, until the other
    /// direction is closed too.
    is_tunnel: bool,
}

impl Outgoing {
    /// Sends `body` on a stream whose head was sent.
    pub fn new(body: Body, stream: SendStream<Bytes>, peer: PeerPolicy) -> Self {
        let (throughput, timer) = (Throughput::default(), Timer::default());
        Self { body, stream, ready: Bytes::new(), peer, throughput, timer, ended: false, is_tunnel: false }
    }

    /// Marks the body as one direction of a tunnel: after trailers end this direction, the body is
    /// polled until the other direction is closed too.
    #[must_use]
    pub fn tunnel(self, is_tunnel: bool) -> Self {
        Self { is_tunnel, ..self }
    }

    /// The stream, once the body was sent.
    pub fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }

    /// Sends the frames that are available. Ready at the end of the body. An error of the body
    /// resets the stream, so that the peer does not take the message for complete.
    pub fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut sent = Ok(());
        while sent.is_ok() && !self.ended {
            sent = ready!(self.poll_part(context));
        }
        if sent.is_ok() && self.is_tunnel {
            // This direction is closed; polling the body drives the other one.
            sent = ready!(Pin::new(&mut self.body).poll_frame(context)).map_or(Ok(()), |frame| frame.map(drop));
        }
        if sent.is_err() {
            self.ended = true;
            self.is_tunnel = false;
            self.stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Poll::Ready(sent)
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.ready.is_empty() {
            return self.poll_ready_data(context);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(|error| self.broken(&error)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    self.ready = data;
                    Poll::Ready(Ok(()))
                }
                Err(frame) => {
                    self.ended = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    // A tunnel has only DATA frames (RFC 9113, section 8.5).
                    let sent = if trailers.is_empty() {
                        self.stream.send_data(Bytes::new(), true)
                    } else {
                        self.stream.send_trailers(trailers)
                    };
                    Poll::Ready(sent.map_err(|error| self.broken(&error)))
                }
            },
            // There is nothing to send, but the peer may reset the stream.
            Poll::Pending => match self.stream.poll_reset(context) {
                Poll::Ready(reset) => {
                    let why = reset.map_or_else(|error| error.to_string(), |reason| reason.to_string());
                    Poll::Ready(Err(Error::new(self.peer.broken, format!("the stream was reset: {why}"))))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn poll_ready_data(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.stream.reserve_capacity(self.ready.len());
        if self.stream.capacity() == 0 {
            match self.stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.broken(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(Error::new(self.peer.broken, "the stream was closed"))),
                Poll::Pending => {
                    let deadline = self.throughput.deadline(&self.peer.min_rate);
                    ready!(self.timer.poll_until(context, deadline));
                    return Poll::Ready(Err(Error::new(self.peer.slow, "the peer takes too little of the body")));
                }
            }
        }
        let part = self.ready.split_to(self.stream.capacity().min(self.ready.len()));
        self.throughput.progressed(part.len());
        self.ended = self.ready.is_empty() && self.body.is_end_stream();
        Poll::Ready(self.stream.send_data(part, self.ended).map_err(|error| self.broken(&error)))
    }

    fn broken(&self, error: &h2::Error) -> Error {
        Error::new(self.peer.broken, format!("the body could not be sent: {error}"))
    }
}
