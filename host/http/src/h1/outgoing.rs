//! A body on its way out over HTTP/1.1: chunked or as it is, gathered so that small parts share a system call and large ones are not copied.
//!
//! Both sides send bodies this way, requests to upstreams and responses to clients. Must not know: whom it goes to.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use super::encode;
use crate::body::Body;
use crate::error::Error;

/// What is gathered before it is sent.
const GATHER_BYTES: usize = 16 << 10;
/// A part that is sent from where it is rather than copied.
const LARGE_BYTES: usize = 8 << 10;

/// A body that is being sent.
pub struct Outgoing {
    body: Body,
    chunked: bool,
    trailers: bool,
    ended: bool,
    /// The body itself said that it has no more: after its trailers it may still have work to do.
    closed: bool,
    owes_chunk_end: bool,
    /// To be sent after the gathered bytes.
    pub large: Bytes,
}

/// What gathering came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gathered {
    /// Nothing comes after what is gathered.
    End,
    /// The body has no more at the moment; it wakes the task when it has.
    Waits,
    /// There is more once what is gathered was sent.
    More,
}

impl Outgoing {
    /// A body to send. `trailers` says whether the peer can take them; they go with chunks only.
    pub fn new(body: Body, chunked: bool, trailers: bool) -> Self {
        Self { body, chunked, trailers, ended: false, closed: false, owes_chunk_end: false, large: Bytes::new() }
    }

    /// Nothing to send.
    pub fn none() -> Self {
        Self { ended: true, closed: true, ..Self::new(Body::empty(), false, false) }
    }

    /// Whether everything was gathered.
    pub fn has_ended(&self) -> bool {
        self.ended && !self.owes_chunk_end && self.large.is_empty()
    }

    /// Whether the body itself is done. It may end its data earlier, by trailers, and go on working: a tunnel whose one direction is closed.
    pub fn has_closed(&self) -> bool {
        self.closed
    }

    /// Puts the next parts of the body into `out` and [`Outgoing::large`]. The error is the body's: what was sent so far is not whole.
    pub fn gather(&mut self, context: &mut Context<'_>, out: &mut BytesMut) -> Result<Gathered, Error> {
        if !self.large.is_empty() {
            return Ok(Gathered::More);
        }
        if std::mem::take(&mut self.owes_chunk_end) {
            out.extend_from_slice(encode::CHUNK_END);
        }
        if self.ended && !self.closed {
            return Ok(match Pin::new(&mut self.body).poll_frame(context) {
                // An error here ends the message too: who asked on would get it again and again.
                Poll::Ready(frame) => {
                    self.closed = frame.transpose()?.is_none();
                    Gathered::End
                }
                Poll::Pending => Gathered::Waits,
            });
        }
        while !self.ended && self.large.is_empty() && out.len() < GATHER_BYTES {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(frame)) => self.take(frame?, out),
                Poll::Ready(None) => {
                    self.closed = true;
                    self.end(&HeaderMap::new(), out);
                }
                Poll::Pending => return Ok(Gathered::Waits),
            }
        }
        Ok(if self.has_ended() { Gathered::End } else { Gathered::More })
    }

    fn take(&mut self, frame: Frame<Bytes>, out: &mut BytesMut) {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(&frame.into_trailers().unwrap_or_default(), out),
        };
        if data.is_empty() {
            return;
        }
        if self.chunked {
            encode::chunk_start(out, data.len());
        }
        if data.len() >= LARGE_BYTES {
            self.large = data;
            self.owes_chunk_end = self.chunked;
            return;
        }
        out.extend_from_slice(&data);
        if self.chunked {
            out.extend_from_slice(encode::CHUNK_END);
        }
    }

    fn end(&mut self, trailers: &HeaderMap, out: &mut BytesMut) {
        self.ended = true;
        if self.chunked {
            let none = HeaderMap::new();
            encode::last_chunk(out, if self.trailers { trailers } else { &none });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// A tunnel's body whose one direction ended by trailers and whose other one broke off.
    struct HalfClosed(bool);

    impl http_body::Body for HalfClosed {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            let first = !std::mem::replace(&mut self.0, true);
            let error = || Error::new(Kind::ClientTimeout, "the client is silent");
            Poll::Ready(Some(if first { Ok(Frame::trailers(HeaderMap::new())) } else { Err(error()) }))
        }
    }

    #[test]
    fn an_error_after_the_end_of_one_direction_is_the_end() {
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let mut outgoing = Outgoing::new(Body::stream(Box::pin(HalfClosed(false))), false, true);
        assert_eq!(outgoing.gather(context, &mut BytesMut::new()).ok(), Some(Gathered::End));
        assert!(!outgoing.has_closed());
        assert!(outgoing.gather(context, &mut BytesMut::new()).is_err());
    }
}
