//! A copy of some of a route's requests, for another upstream.
//!
//! The main exchange never waits for it and never fails by it: a body in hand is shared, a streamed one is copied as it passes and the copy leaves when its end has come. What would
//! cost too much is not copied but counted: a body above the bound, or more copies at once than the bound. Must not know: how a copy is sent, what answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};

use witgate_http::body::Body;
use witgate_http::error::Error;

/// Of a streamed body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Copies of one route that wait for their body or their answer.
const IN_FLIGHT_MAX: usize = 128;

/// Decides which requests of a route are copied.
#[derive(Debug)]
pub struct Mirror {
    percent: u8,
    in_flight: Arc<AtomicUsize>,
}

/// A copy's place among those in flight.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

/// What became of a request's copy, so far.
pub enum Copied {
    /// It can leave. The permit is kept until its answer came.
    Ready(Box<http::Request<Body>>, Permit),
    /// Its body is larger than the bound.
    BodyTooLarge,
    /// There are too many already.
    Busy,
}

impl Mirror {
    /// `percent` of the requests: 1 to 100.
    pub fn new(percent: u8) -> Self {
        Self { percent, in_flight: Arc::default() }
    }

    /// Gives the request back for the main exchange; if it is chosen, `told` hears of its copy once: now, when the body
    /// has passed, or never if it breaks off.
    pub fn copy(&self, request: http::Request<Body>, told: impl FnOnce(Copied) + 'static) -> http::Request<Body> {
        if self.percent < 100 && fastrand::u8(0..100) >= self.percent {
            return request;
        }
        let Some(permit) = self.enter() else {
            told(Copied::Busy);
            return request;
        };
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        let ready = |body: Body| Copied::Ready(Box::new(head.map(|()| body)), permit);
        if let Some(body) = request.body().replay() {
            told(ready(body));
            return request;
        }
        if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
            told(Copied::BodyTooLarge);
            return request;
        }
        let done = Box::new(move |bytes: Option<Bytes>| {
            told(bytes.map_or(Copied::BodyTooLarge, |bytes| ready(Body::full(bytes))));
        });
        let mut tee = Tee { copy: BytesMut::new(), done: Some(done) };
        request.map(|body| {
            body.through(move |source, context| {
                let frame = ready!(source.as_mut().poll_frame(context));
                tee.see(frame.as_ref(), source.is_end_stream());
                Poll::Ready(frame)
            })
        })
    }

    fn enter(&self) -> Option<Permit> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self.in_flight.clone());
        (before < IN_FLIGHT_MAX).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body's copy, made as it passes.
struct Tee {
    copy: BytesMut,
    /// Gets the whole copy, or none where it became too large.
    done: Option<Box<dyn FnOnce(Option<Bytes>)>>,
}

impl Tee {
    fn see(&mut self, frame: Option<&Result<Frame<Bytes>, Error>>, is_last: bool) {
        match frame {
            None => self.tell(true),
            Some(Err(_)) => self.done = None,
            Some(Ok(frame)) => {
                let data = frame.data_ref().filter(|_| self.done.is_some()).cloned().unwrap_or_default();
                if self.copy.len() + data.len() > BODY_BYTES_MAX {
                    self.tell(false);
                } else {
                    self.copy.extend_from_slice(&data);
                }
                // Whoever knows the length does not ask for what comes after the last byte.
                if is_last {
                    self.tell(true);
                }
            }
        }
    }

    fn tell(&mut self, is_whole: bool) {
        let copy = std::mem::take(&mut self.copy);
        if let Some(done) = self.done.take() {
            done(is_whole.then(|| copy.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Waker};
    use witgate_http::error::Kind;

    struct Script(VecDeque<Result<Frame<Bytes>, Error>>);

    impl http_body::Body for Script {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    /// What is told of the copy of a request with this body, when the main exchange has read `reads` frames.
    fn copied(mirror: &Mirror, parts: Vec<Result<usize, ()>>, reads: usize) -> Vec<String> {
        let frame = |part: Result<usize, ()>| match part {
            Ok(length) => Ok(Frame::data(Bytes::from(vec![b'x'; length]))),
            Err(()) => Err(Error::new(Kind::ClientGone, "")),
        };
        let body = Body::stream(Box::pin(Script(parts.into_iter().map(frame).collect())));
        let heard = Rc::new(RefCell::new(vec![]));
        let tell = heard.clone();
        let mut request = mirror.copy(http::Request::new(body), move |copied| {
            tell.borrow_mut().push(match copied {
                Copied::Ready(request, _) => format!("{} bytes", request.body().in_hand().unwrap_or_default().len()),
                Copied::BodyTooLarge => "too large".into(),
                Copied::Busy => "busy".into(),
            });
        });
        for _ in 0..reads {
            let _ = Pin::new(request.body_mut()).poll_frame(&mut Context::from_waker(Waker::noop()));
        }
        heard.take()
    }

    #[test]
    fn a_copy_leaves_when_its_body_has_passed() {
        let mirror = Mirror::new(100);
        assert_eq!(copied(&mirror, vec![Ok(3), Ok(4)], 2), [""; 0]);
        assert_eq!(copied(&mirror, vec![Ok(3), Ok(4)], 3), ["7 bytes"]);
        assert_eq!(copied(&mirror, vec![Ok(3), Err(())], 3), [""; 0], "half a request is none");
        assert_eq!(copied(&mirror, vec![Ok(BODY_BYTES_MAX), Ok(1)], 3), ["too large"]);
        assert_eq!(mirror.in_flight.load(Ordering::Relaxed), 0, "permits come back");
    }

    #[test]
    fn a_body_in_hand_is_copied_at_once_and_copies_are_bounded() {
        let mirror = Mirror::new(100);
        let kept = Rc::new(RefCell::new(vec![]));
        for _ in 0..=IN_FLIGHT_MAX {
            let keep = kept.clone();
            let request = http::Request::new(Body::full(Bytes::from_static(b"abc")));
            mirror.copy(request, move |copied| keep.borrow_mut().push(copied));
        }
        assert!(matches!(kept.borrow()[0], Copied::Ready(..)));
        assert!(matches!(kept.borrow()[IN_FLIGHT_MAX], Copied::Busy));
        kept.borrow_mut().clear();
        assert_eq!(mirror.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn about_the_share_that_was_asked_for_is_copied() {
        let mirror = Mirror::new(10);
        let count = Rc::new(RefCell::new(0));
        for _ in 0..10_000 {
            let count = count.clone();
            mirror.copy(http::Request::new(Body::empty()), move |_| *count.borrow_mut() += 1);
        }
        assert!((700..=1300).contains(&*count.borrow()), "{count:?}");
    }
}
