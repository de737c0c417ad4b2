//! A message's body on its way through: nothing, bytes in hand, or a stream from the other side.
//!
//! One enum rather than a boxed trait object: the common case costs no allocation, and a body that no filter asks for is
//! passed on frame by frame as it arrives. Must not know: who reads it, and why.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use smallvec::SmallVec;

/// Something that must live as long as the body does: a permit, a timer.
pub type Guard = Box<dyn std::any::Any>;

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
    Stream(Incoming),
}

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
    /// The sender broke off.
    Broken(hyper::Error),
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

    /// What a connection delivers.
    pub fn stream(incoming: Incoming) -> Self {
        let inner = if incoming.is_end_stream() { Inner::Empty } else { Inner::Stream(incoming) };
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
        let incoming = match self.inner {
            Inner::Empty => return Ok(Bytes::new()),
            Inner::Full(bytes) if bytes.len() > limit => return Err(ReadError::TooLarge),
            Inner::Full(bytes) => return Ok(bytes),
            Inner::Stream(incoming) => incoming,
        };
        if incoming.size_hint().lower() > limit as u64 {
            return Err(ReadError::TooLarge);
        }
        match http_body_util::Limited::new(incoming, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => Err(ReadError::Broken(*error)),
                Err(_) => Err(ReadError::TooLarge),
            },
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.inner {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Stream(incoming) => Pin::new(incoming).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::Stream(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(incoming) => incoming.size_hint(),
        }
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

    fn futures_now<F: Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("a body in hand must not wait"),
        }
    }
}
