//! A message's body on its way through: nothing, bytes in hand, or a stream from the other side.
//!
//! A body that no filter asks for is passed on frame by frame as it arrives; what a stream comes from (HTTP/1.1, HTTP/2, a compressor) is behind a trait object, so that
//! this file knows no protocol. Must not know: who reads it, and why.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use smallvec::SmallVec;

use crate::error::{Error, Kind};

/// Something that must live as long as the body does: a permit, a timer.
pub type Guard = Box<dyn std::any::Any>;

/// Passes an interim response (1xx but 101) to the client, at once and in order; what comes after the answer began is dropped.
pub type Interim = std::rc::Rc<dyn Fn(http::StatusCode, &http::HeaderMap)>;

/// A request's or a response's body.
#[derive(Default)]
pub struct Body {
    inner: Inner,
    guards: SmallVec<[Guard; 2]>,
}

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Source),
}

/// Where a streamed body comes from. An error ends it: the message must then not look whole to whoever gets it.
pub type Source = Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error>>>;

/// What polling a body gives: its next part, none at its end.
pub type Polled = Poll<Option<Result<Frame<Bytes>, Error>>>;

/// Bytes of bodies held in memory, over all exchanges.
#[derive(Debug, Default)]
pub struct Held(AtomicUsize);

/// A part of [`Held`], given back when dropped.
#[derive(Debug)]
pub struct Hold {
    held: Arc<Held>,
    bytes: usize,
}

impl Held {
    /// Takes `bytes` if no more than `max` are then held in all.
    pub fn take(self: &Arc<Self>, bytes: usize, max: usize) -> Option<Hold> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let hold = Hold { held: self.clone(), bytes };
        (before + bytes <= max).then_some(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why a body could not be read to its end.
#[derive(Debug)]
pub enum ReadError {
    /// More bytes than the limit.
    TooLarge,
    /// The sender broke off, was too slow, or sent what is not HTTP.
    Broken(Error),
}

impl Body {
    /// No body at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Bytes in hand.
    pub fn full(bytes: Bytes) -> Self {
        let inner = if bytes.is_empty() { Inner::Empty } else { Inner::Full(bytes) };
        Self { inner, guards: SmallVec::new() }
    }

    /// What a connection delivers, piece by piece.
    pub fn stream(source: Source) -> Self {
        let inner = if source.is_end_stream() { Inner::Empty } else { Inner::Stream(source) };
        Self { inner, guards: SmallVec::new() }
    }

    /// The same body once more, for another try; none where it is a stream, which exists once. Guards stay with the first.
    pub fn replay(&self) -> Option<Self> {
        match &self.inner {
            Inner::Empty => Some(Self::empty()),
            Inner::Full(bytes) => Some(Self::full(bytes.clone())),
            Inner::Stream(_) => None,
        }
    }

    /// The bytes of a body that is in hand: empty for none at all; none where it is a stream.
    pub fn in_hand(&self) -> Option<&[u8]> {
        match &self.inner {
            Inner::Empty => Some(b""),
            Inner::Full(bytes) => Some(bytes),
            Inner::Stream(_) => None,
        }
    }

    /// The same body, ended by an error where it turns out longer than `max` bytes.
    #[must_use]
    pub fn limited(self, max: u64) -> Self {
        let mut left = max;
        self.through(move |source, context| {
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

    /// The same body, polled by way of `step`, which polls the source and may watch what comes, or end it by an error. A body in hand stays as it is.
    #[must_use]
    pub fn through(self, step: impl FnMut(&mut Source, &mut Context<'_>) -> Polled + Unpin + 'static) -> Self {
        match self.inner {
            Inner::Stream(source) => {
                Self { inner: Inner::Stream(Box::pin(Through { source, step })), guards: self.guards }
            }
            inner => Self { inner, ..self },
        }
    }

    /// Keeps `guard` until the body has been sent or dropped.
    #[must_use]
    pub fn guarded(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Bytes that reading the body may take: its length where that is known, else `limit`.
    pub fn cost(&self, limit: usize) -> usize {
        use http_body::Body as _;
        self.size_hint().exact().and_then(|exact| usize::try_from(exact).ok()).map_or(limit, |exact| exact.min(limit))
    }

    /// Reads the body to its end, at most `limit` bytes.
    pub async fn read(self, limit: usize) -> Result<Bytes, ReadError> {
        let source = match self.inner {
            Inner::Empty => return Ok(Bytes::new()),
            Inner::Full(bytes) if bytes.len() > limit => return Err(ReadError::TooLarge),
            Inner::Full(bytes) => return Ok(bytes),
            Inner::Stream(source) => source,
        };
        if source.size_hint().lower() > limit as u64 {
            return Err(ReadError::TooLarge);
        }
        gather(source, limit).await
    }
}

/// Copies rather than keeps the parts: a part of one byte would hold all that was read with it.
async fn gather(mut source: Source, limit: usize) -> Result<Bytes, ReadError> {
    let mut gathered = BytesMut::new();
    while let Some(frame) = source.frame().await {
        let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
        if data.len() > limit - gathered.len() {
            return Err(ReadError::TooLarge);
        }
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

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.inner {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Stream(source) => source.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::Stream(source) => source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(source) => source.size_hint(),
        }
    }
}

/// A stream that is polled by way of something.
struct Through<F> {
    source: Source,
    step: F,
}

impl<F> http_body::Body for Through<F>
where
    F: FnMut(&mut Source, &mut Context<'_>) -> Polled + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        (this.step)(&mut this.source, context)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_hand_is_bounded_and_ends() {
        let body = Body::full(Bytes::from_static(b"hello"));
        assert_eq!(body.size_hint().exact(), Some(5));
        let read = futures_now(body.read(4));
        assert!(matches!(read, Err(ReadError::TooLarge)));
        assert_eq!(
            futures_now(Body::full(Bytes::from_static(b"hello")).read(5)).ok(),
            Some(Bytes::from_static(b"hello"))
        );
        assert!(Body::full(Bytes::new()).is_end_stream());
    }

    /// A body of parts of one byte, each cut from a buffer of its own.
    struct Crumbs(usize);

    impl http_body::Body for Crumbs {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
            self.0 = left;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 16 << 10]).split_to(1)))))
        }
    }

    #[test]
    fn crumbs_are_read_as_one_piece_and_bounded() {
        let read = |crumbs, limit| futures_now(Body::stream(Box::pin(Crumbs(crumbs))).read(limit));
        assert!(read(300, 300).is_ok_and(|bytes| bytes.len() == 300 && bytes.is_unique()));
        assert!(matches!(read(301, 300), Err(ReadError::TooLarge)));
    }

    fn futures_now<F: Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("a body in hand must not wait"),
        }
    }
}
