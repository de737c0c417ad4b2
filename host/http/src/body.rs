//! A message's body inside the gateway: empty, bytes in memory, or a stream.
//!
//! A body that no filter reads is passed on frame by frame as it arrives. The source of a stream
//! (HTTP/1.1, HTTP/2, a compressor) is behind a trait object, so this file knows no protocol; the
//! price is one allocation per streamed body. A source that reads from a socket can pass its bytes
//! on in a pipe, if nobody between the two sockets looks at them. This module does not know: who
//! reads a body.

mod mapped;
mod source;
mod traffic;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use smallvec::SmallVec;

use self::mapped::{MappedPoll, MappedTrailers, Observed};
pub use self::source::{FrameStream, PolledFrame, PolledPipe, Source};
pub use self::traffic::{Direction, Traffic};
use crate::body_budget::{Arriving, Exceeded};
use crate::error::{Error, Kind};
use crate::limiter::Permit;
use crate::semantics::fields::remove_with_lookalikes;

/// A value that must live as long as a body. A permit needs no allocation of its own.
pub enum Guard {
    /// A unit of a [`Limiter`](crate::limiter::Limiter).
    Permit(Permit),
    /// Any other value.
    Other(Box<dyn std::any::Any>),
}

impl From<Permit> for Guard {
    fn from(permit: Permit) -> Self {
        Self::Permit(permit)
    }
}

impl<T: std::any::Any> From<Box<T>> for Guard {
    fn from(value: Box<T>) -> Self {
        Self::Other(value)
    }
}

/// Sends an interim response (1xx except 101) to the client, at once and in order. Interim
/// responses after the start of the final response are dropped.
pub type InterimSink = std::rc::Rc<dyn Fn(http::StatusCode, &http::HeaderMap)>;

/// A request's or a response's body.
#[derive(Default)]
pub struct Body {
    inner: Inner,
    guards: SmallVec<[Guard; 2]>,
    traffic: Option<(Rc<Traffic>, Direction)>,
}

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    Stream(FrameStream),
}

/// Why a body could not be read to its end.
#[derive(Debug)]
pub enum ReadError {
    /// More bytes than the limit.
    TooLarge,
    /// The sender disconnected, was too slow, or sent invalid HTTP, or the gateway holds as many
    /// bytes of bodies as it may.
    Broken(Error),
}

impl Body {
    /// An empty body.
    #[inline]
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body of bytes that are in memory.
    #[inline]
    pub fn full(bytes: Bytes) -> Self {
        let inner = if bytes.is_empty() { Inner::Empty } else { Inner::Full(bytes) };
        Self { inner, ..Self::default() }
    }

    /// A body that arrives frame by frame.
    #[inline]
    pub fn stream(source: FrameStream) -> Self {
        let inner = if source.is_end_stream() { Inner::Empty } else { Inner::Stream(source) };
        Self { inner, ..Self::default() }
    }

    /// Clones the body for another attempt. None for a stream, which can be read only once. Guards
    /// stay with the original.
    pub fn try_clone(&self) -> Option<Self> {
        match &self.inner {
            Inner::Empty => Some(Self::empty()),
            Inner::Full(bytes) => Some(Self::full(bytes.clone())),
            Inner::Stream(_) => None,
        }
    }

    /// The bytes of a body in memory; empty for an empty body. None for a stream.
    pub fn buffered(&self) -> Option<&[u8]> {
        match &self.inner {
            Inner::Empty => Some(b""),
            Inner::Full(bytes) => Some(bytes),
            Inner::Stream(_) => None,
        }
    }

    /// Refuses a body that is known to be longer than `max` bytes, and ends any other body with an
    /// error once it has more. `setting` names the limit for the operator.
    pub fn limited(self, max: u64, setting: &str) -> Result<Self, Error> {
        let hint = self.size_hint();
        if hint.lower() > max {
            return Err(Error::new(Kind::BodyTooLarge, format!("a request body above {setting} ({max})")));
        }
        Ok(if hint.exact().is_some() { self } else { self.cut_after(max) })
    }

    fn cut_after(self, max: u64) -> Self {
        let mut left = max;
        self.map_poll(move |source, context| {
            let frame = ready!(source.as_mut().poll_frame(context));
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(rest) = left.checked_sub(bytes) else {
                    let detail = format!("a body of more than {max} bytes");
                    return Poll::Ready(Some(Err(Error::new(Kind::BodyTooLarge, detail))));
                };
                left = rest;
            }
            Poll::Ready(frame)
        })
    }

    /// Replaces how a stream is polled: `step` polls the source, and may observe the frames or end
    /// the body with an error. A body in memory stays as it is.
    #[must_use]
    pub fn map_poll(
        self,
        step: impl FnMut(&mut FrameStream, &mut Context<'_>) -> PolledFrame + Unpin + 'static,
    ) -> Self {
        match self.inner {
            Inner::Stream(source) => Self { inner: Inner::Stream(Box::pin(MappedPoll { source, step })), ..self },
            inner => Self { inner, ..self },
        }
    }

    /// Changes the trailers of a stream. If nothing is left of them they stay as an empty frame.
    #[must_use]
    pub fn map_trailers(self, change: impl FnMut(&mut http::HeaderMap) + Unpin + 'static) -> Self {
        match self.inner {
            Inner::Stream(source) if source.can_have_trailers() => {
                Self { inner: Inner::Stream(Box::pin(MappedTrailers { source, change })), ..self }
            }
            inner => Self { inner, ..self },
        }
    }

    /// Removes the trailers that have these names.
    #[must_use]
    pub fn without_trailers(self, names: Vec<http::HeaderName>) -> Self {
        if names.is_empty() {
            return self;
        }
        self.map_trailers(move |trailers| names.iter().for_each(|name| remove_with_lookalikes(trailers, name)))
    }

    /// Reports to `observe` after each poll whether the body's next bytes have to be waited for.
    #[must_use]
    pub fn observe_waiting(self, observe: impl FnMut(bool) + Unpin + 'static) -> Self {
        match self.inner {
            Inner::Stream(source) => Self { inner: Inner::Stream(Box::pin(Observed { source, observe })), ..self },
            inner => Self { inner, ..self },
        }
    }

    /// Passes the bytes that come next on in a pipe. None if that is not possible: then
    /// `poll_frame` returns what comes next.
    pub fn poll_pipe(&mut self, context: &mut Context<'_>) -> Option<PolledPipe> {
        let Inner::Stream(source) = &mut self.inner else { return None };
        let polled = source.as_mut().poll_pipe(context)?;
        match &polled {
            Poll::Ready(Ok(pipe)) => self.note_bytes(pipe.len()),
            Poll::Ready(Err(error)) => self.note_broken(error.kind),
            Poll::Pending => {}
        }
        Some(polled)
    }

    /// Counts bytes that are passed on. A reader that knows the length does not poll again after
    /// the last byte.
    #[inline]
    fn note_bytes(&self, bytes: usize) {
        if let Some((traffic, direction)) = &self.traffic {
            traffic.add(*direction, bytes);
            if http_body::Body::is_end_stream(self) {
                traffic.note_end(*direction);
            }
        }
    }

    fn note_broken(&self, kind: Kind) {
        if let Some((traffic, direction)) = &self.traffic {
            traffic.note_broken(*direction, kind);
        }
    }

    /// Keeps `guard` until the body was sent or dropped.
    #[inline]
    pub fn add_guard(&mut self, guard: impl Into<Guard>) {
        self.guards.push(guard.into());
    }

    /// Counts the bytes that are read from the body.
    #[inline]
    pub fn count_bytes(&mut self, traffic: &Rc<Traffic>, direction: Direction) {
        if matches!(self.inner, Inner::Empty) {
            traffic.note_end(direction);
        } else {
            self.traffic = Some((traffic.clone(), direction));
        }
    }

    #[inline]
    fn count(&self, bytes: usize) {
        if let Some((traffic, direction)) = &self.traffic {
            traffic.add(*direction, bytes);
        }
    }

    /// Reads the whole body. Fails if it has more than `limit` bytes.
    pub async fn read(self, limit: usize) -> Result<Bytes, ReadError> {
        self.read_counted(limit, Arriving::uncounted()).await
    }

    /// Reads the whole body, and counts it as it arrives. Fails if it has more than `limit` bytes.
    pub async fn read_counted(mut self, limit: usize, mut arriving: Arriving) -> Result<Bytes, ReadError> {
        if self.size_hint().lower() > limit as u64 {
            return Err(ReadError::TooLarge);
        }
        let bytes = match std::mem::take(&mut self.inner) {
            Inner::Empty => Bytes::new(),
            Inner::Full(bytes) => {
                arriving.grow_to(bytes.len()).map_err(saturated)?;
                bytes
            }
            Inner::Stream(source) => collect(source, limit, &mut arriving).await?,
        };
        self.count(bytes.len());
        Ok(arriving.hold(bytes))
    }
}

/// The gateway holds as many bytes of bodies as it may.
fn saturated(exceeded: Exceeded) -> ReadError {
    ReadError::Broken(Error::new(Kind::Saturated, exceeded.to_string()))
}

/// Copies the frames instead of keeping them: a frame of one byte keeps the whole buffer alive that
/// it was read into.
async fn collect(mut source: FrameStream, limit: usize, arriving: &mut Arriving) -> Result<Bytes, ReadError> {
    let mut gathered = BytesMut::new();
    while let Some(frame) = source.frame().await {
        let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
        if data.len() > limit - gathered.len() {
            return Err(ReadError::TooLarge);
        }
        arriving.grow_to(gathered.len() + data.len()).map_err(saturated)?;
        if gathered.is_empty() && source.is_end_stream() {
            return Ok(data);
        }
        gathered.extend_from_slice(&data);
    }
    Ok(gathered.freeze())
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    #[inline]
    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match &mut self.inner {
            Inner::Empty => None,
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Inner::Stream(source) => ready!(source.as_mut().poll_frame(context)),
        };
        match &frame {
            Some(Ok(frame)) => self.note_bytes(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => self.note_broken(error.kind),
            None => {
                if let Some((traffic, direction)) = &self.traffic {
                    traffic.note_end(*direction);
                }
            }
        }
        Poll::Ready(frame)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::Stream(source) => source.is_end_stream(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(source) => source.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_memory_is_bounded_and_ends() {
        let body = Body::full(Bytes::from_static(b"hello"));
        assert_eq!(body.size_hint().exact(), Some(5));
        let read = poll_now(body.read(4));
        assert!(matches!(read, Err(ReadError::TooLarge)));
        assert_eq!(poll_now(Body::full(Bytes::from_static(b"hello")).read(5)).ok(), Some(Bytes::from_static(b"hello")));
        assert!(Body::full(Bytes::new()).is_end_stream());
    }

    /// A body of frames of one byte, each cut from its own 16 KiB buffer.
    struct TinyFrames(usize);

    impl http_body::Body for TinyFrames {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
            self.0 = left;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 16 << 10]).split_to(1)))))
        }
    }

    impl Source for TinyFrames {}

    #[test]
    fn tiny_frames_are_copied_into_one_buffer() {
        let read = |frames, limit| poll_now(Body::stream(Box::pin(TinyFrames(frames))).read(limit));
        assert!(read(300, 300).is_ok_and(|bytes| bytes.len() == 300 && bytes.is_unique()));
        assert!(matches!(read(301, 300), Err(ReadError::TooLarge)));
    }

    #[test]
    fn the_bytes_of_both_bodies_are_counted() {
        let traffic = Rc::new(Traffic::default());
        let counted = |mut body: Body, direction| {
            body.count_bytes(&traffic, direction);
            body
        };
        let request = counted(
            Body::stream(Box::pin(TinyFrames(3))).map_poll(|source, context| source.as_mut().poll_frame(context)),
            Direction::Received,
        );
        assert!(poll_now(request.read(10)).is_ok());
        let mut response = counted(Body::full(Bytes::from_static(b"hello")), Direction::Sent);
        assert!(poll_now(response.frame()).is_some() && poll_now(response.frame()).is_none());
        assert_eq!((traffic.received(), traffic.sent()), (3, 5));
    }

    fn poll_now<F: Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the body must be ready without waiting"),
        }
    }
}
