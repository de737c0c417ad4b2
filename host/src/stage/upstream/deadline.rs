//! A response's body that must be over by an instant (`total_timeout`), however steadily it drips.
//!
//! Must not know: where the body comes from, what it is part of.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::body::Body;
use crate::error::{Error, Kind};
use crate::pace::Timer;

/// `body`, broken off at `until`.
pub(super) fn within(body: Body, until: Instant) -> Body {
    if body.in_hand().is_some() {
        return body;
    }
    Body::stream(Box::pin(Within { body, until, timer: Timer::default() }))
}

struct Within {
    body: Body,
    until: Instant,
    timer: Timer,
}

impl http_body::Body for Within {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        // First, so that what always has something to give ends too.
        if this.timer.poll_until(context, this.until).is_ready() {
            let error = Error::new(Kind::UpstreamTimeout, "the response was not over within total_timeout");
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
