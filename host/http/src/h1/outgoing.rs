//! Encodes a body for HTTP/1.1, chunked or unchanged, and gathers it for writing.
//!
//! Small frames are copied into one buffer, so that they share a system call; long frames are sent
//! from where they are, which saves the copy, and pipes as they are. Both sides of the gateway send
//! bodies this way: requests to upstreams and responses to clients. This module does not know: who
//! receives the body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use super::encode;
use super::io::LongPart;
use crate::body::Body;
use crate::error::Error;
use crate::pipe::Pipe;

/// Bytes that are gathered before they are sent.
const GATHER_BYTES: usize = 16 << 10;
/// Frames of at least this many bytes are not copied.
const LONG_BYTES: usize = 8 << 10;

/// A body that is being sent.
pub struct Outgoing {
    body: Body,
    chunked: bool,
    trailers: bool,
    ended: bool,
    /// The body returned its end. After its trailers it may not have done so: a tunnel whose other
    /// direction goes on.
    closed: bool,
    owes_chunk_end: bool,
    accepts_pipes: bool,
    /// A long part of the body, to be sent after the gathered bytes.
    pub long: LongPart,
}

/// The result of gathering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gathered {
    /// The gathered bytes are the last.
    End,
    /// The body has no more frames at the moment; it will wake the task.
    Pending,
    /// There is more; send the gathered bytes first.
    More,
}

impl Outgoing {
    /// Sends `body`. `trailers` says whether the peer accepts trailers, which only chunks can
    /// carry. `accepts_pipes` says whether the body goes to a socket without TLS.
    pub fn new(body: Body, chunked: bool, trailers: bool, accepts_pipes: bool) -> Self {
        let long = LongPart::None;
        Self { body, chunked, trailers, ended: false, closed: false, owes_chunk_end: false, accepts_pipes, long }
    }

    /// Sends nothing.
    pub fn none() -> Self {
        Self { ended: true, closed: true, ..Self::new(Body::empty(), false, false, false) }
    }

    /// Whether the whole body was gathered and sent.
    pub fn has_ended(&self) -> bool {
        self.ended && !self.owes_chunk_end && self.long.is_empty()
    }

    /// Whether the body itself is finished. A tunnel ends one direction by trailers and goes on
    /// with the other.
    pub fn has_closed(&self) -> bool {
        self.closed
    }

    /// Puts the next frames of the body into `out` and [`Outgoing::long`]. An error comes from the
    /// body; the message is then incomplete.
    pub fn gather(&mut self, context: &mut Context<'_>, out: &mut BytesMut) -> Result<Gathered, Error> {
        if !self.long.is_empty() {
            return Ok(Gathered::More);
        }
        if std::mem::take(&mut self.owes_chunk_end) {
            out.extend_from_slice(encode::CHUNK_END);
        }
        if self.ended && !self.closed {
            return Ok(match Pin::new(&mut self.body).poll_frame(context) {
                // An error ends the message too: polling again would return it again.
                Poll::Ready(frame) => {
                    self.closed = frame.transpose()?.is_none();
                    Gathered::End
                }
                Poll::Pending => Gathered::Pending,
            });
        }
        while !self.ended && self.long.is_empty() && out.len() < GATHER_BYTES {
            if self.accepts_pipes
                && let Some(polled) = self.body.poll_pipe(context)
            {
                match polled {
                    Poll::Ready(pipe) => self.take_pipe(pipe?, out),
                    Poll::Pending => return Ok(Gathered::Pending),
                }
                continue;
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(frame)) => self.take(frame?, out),
                Poll::Ready(None) => {
                    self.closed = true;
                    self.end(&HeaderMap::new(), out);
                }
                Poll::Pending => return Ok(Gathered::Pending),
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
        if data.len() >= LONG_BYTES {
            self.long = LongPart::Bytes(data);
            self.owes_chunk_end = self.chunked;
            return;
        }
        out.extend_from_slice(&data);
        if self.chunked {
            out.extend_from_slice(encode::CHUNK_END);
        }
    }

    fn take_pipe(&mut self, pipe: Pipe, out: &mut BytesMut) {
        if self.chunked {
            encode::chunk_start(out, pipe.len());
        }
        self.long = LongPart::Pipe(pipe);
        self.owes_chunk_end = self.chunked;
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
    use crate::body::Source;
    use crate::error::Kind;

    /// A tunnel's body whose first direction ended by trailers and whose second direction failed.
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

    impl Source for HalfClosed {}

    #[test]
    fn an_error_after_the_end_of_one_direction_is_the_end() {
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let mut outgoing = Outgoing::new(Body::stream(Box::pin(HalfClosed(false))), false, true, false);
        assert_eq!(outgoing.gather(context, &mut BytesMut::new()).ok(), Some(Gathered::End));
        assert!(!outgoing.has_closed());
        assert!(outgoing.gather(context, &mut BytesMut::new()).is_err());
    }
}
