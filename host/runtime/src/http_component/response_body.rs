//! The body of a response: reading it runs the guest.
//!
//! So a slow client slows the guest down, and no task or channel beside it is needed. A body that
//! the guest does not finish ends with an error. This module does not know: requests.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use wasmtime_wasi_http::WasiBody;

use super::running::Running;
use witgate_http::body::{Body, Source};
use witgate_http::error::{Error, Kind};

/// The body of a response. Reading it runs the guest.
pub(super) struct ResponseBody {
    /// None once the guest has returned and its last frames were taken.
    running: Option<Box<Running>>,
    body: WasiBody,
    /// Frames that were taken when the guest returned.
    taken: VecDeque<Result<Frame<Bytes>, Error>>,
    /// What is left of the length that the head names.
    left: Option<u64>,
    has_ended: bool,
}

impl ResponseBody {
    /// The body of a response whose head names this length.
    pub(super) fn new(running: Box<Running>, body: WasiBody, length: Option<u64>) -> Self {
        Self { running: Some(running), body, taken: VecDeque::new(), left: length, has_ended: false }
    }

    /// The body for the gateway: in memory if the guest has returned, otherwise a stream. Empty if
    /// `is_head`: the response has only a head, so nobody reads the body.
    pub(super) fn into_body(mut self, context: &mut Context<'_>, is_head: bool) -> Body {
        if is_head {
            return Body::empty();
        }
        self.take_last_frames(context);
        let is_plain = |frame: &Result<Frame<Bytes>, Error>| matches!(frame, Ok(frame) if frame.is_data());
        let length: u64 = self.taken.iter().flatten().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let is_whole = self.running.is_none() && self.left.is_none_or(|left| left == length);
        if !is_whole || !self.taken.iter().all(is_plain) {
            return Body::stream(Box::pin(self));
        }
        let mut frames = self.taken.into_iter().flatten().filter_map(|frame| frame.into_data().ok());
        let first = frames.next().unwrap_or_default();
        let Some(second) = frames.next() else { return Body::full(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        frames.for_each(|data| all.extend_from_slice(&data));
        Body::full(all.freeze())
    }

    /// Once the guest has returned, takes what it has written, so that its instance can be dropped.
    /// A body that it did not finish is broken.
    fn take_last_frames(&mut self, context: &mut Context<'_>) {
        let Some(running) = &mut self.running else { return };
        let Poll::Ready(returned) = running.poll(context) else { return };
        if let Err(error) = returned {
            self.taken.push_back(Err(error));
        } else {
            loop {
                match Pin::new(&mut self.body).poll_frame(context) {
                    Poll::Ready(None) => break,
                    Poll::Ready(Some(Ok(frame))) => self.taken.push_back(Ok(frame)),
                    Poll::Ready(Some(Err(_))) | Poll::Pending => {
                        self.taken.push_back(Err(unfinished()));
                        break;
                    }
                }
            }
        }
        self.running = None;
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.take_last_frames(context);
        if self.running.is_none() {
            return Poll::Ready(self.taken.pop_front());
        }
        let polled = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(polled.map(|frame| frame.map_err(|_| unfinished())))
    }

    /// Holds the guest to the length that it announced.
    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), Error> {
        let Some(left) = &mut self.left else { return Ok(()) };
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        *left = left.checked_sub(length).ok_or_else(|| broken("is longer than its content-length"))?;
        Ok(())
    }
}

fn unfinished() -> Error {
    broken("was not finished by the component")
}

fn broken(how: &str) -> Error {
    Error::new(Kind::UpstreamClosed, format!("the body of the response {how}"))
}

impl Source for ResponseBody {}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let polled = match ready!(self.poll_next(context)) {
            None if self.left.is_some_and(|left| left > 0) => Some(Err(broken("is shorter than its content-length"))),
            Some(Ok(frame)) => Some(self.count(&frame).map(|()| frame)),
            other => other,
        };
        if !matches!(polled, Some(Ok(_))) {
            self.has_ended = true;
            self.running = None;
        }
        Poll::Ready(polled)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}
