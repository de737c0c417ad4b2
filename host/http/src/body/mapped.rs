//! Streams that a closure polls, changes or observes.
//!
//! This module does not know: what the closures do.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::SizeHint;

use super::source::{FrameStream, PolledFrame, PolledPipe, Source};
use crate::error::Error;

/// A stream that is polled by a closure.
pub(super) struct MappedPoll<F> {
    pub(super) source: FrameStream,
    pub(super) step: F,
}

impl<F> http_body::Body for MappedPoll<F>
where
    F: FnMut(&mut FrameStream, &mut Context<'_>) -> PolledFrame + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
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

impl<F> Source for MappedPoll<F> where F: FnMut(&mut FrameStream, &mut Context<'_>) -> PolledFrame + Unpin {}

/// A stream whose trailers are changed.
pub(super) struct MappedTrailers<F> {
    pub(super) source: FrameStream,
    pub(super) change: F,
}

impl<F: FnMut(&mut http::HeaderMap) + Unpin> http_body::Body for MappedTrailers<F> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let this = self.get_mut();
        let mut frame = ready!(this.source.as_mut().poll_frame(context));
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            (this.change)(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

impl<F: FnMut(&mut http::HeaderMap) + Unpin> Source for MappedTrailers<F> {
    fn poll_pipe(self: Pin<&mut Self>, context: &mut Context<'_>) -> Option<PolledPipe> {
        self.get_mut().source.as_mut().poll_pipe(context)
    }
}

/// A stream whose waiting is observed.
pub(super) struct Observed<F> {
    pub(super) source: FrameStream,
    pub(super) observe: F,
}

impl<F: FnMut(bool) + Unpin> http_body::Body for Observed<F> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let this = self.get_mut();
        let polled = this.source.as_mut().poll_frame(context);
        (this.observe)(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

impl<F: FnMut(bool) + Unpin> Source for Observed<F> {
    fn poll_pipe(self: Pin<&mut Self>, context: &mut Context<'_>) -> Option<PolledPipe> {
        let this = self.get_mut();
        let polled = this.source.as_mut().poll_pipe(context)?;
        (this.observe)(polled.is_pending());
        Some(polled)
    }
}
