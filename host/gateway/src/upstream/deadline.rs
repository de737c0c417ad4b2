//! A response's body that must be over by an instant (`total_timeout`), however steadily it drips.
//!
//! Must not know: where the body comes from, what it is part of.

use std::task::Poll;
use std::time::Instant;

use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};
use witgate_http::throughput::Timer;

/// `body`, broken off at `until`.
pub(super) fn within(body: Body, until: Instant) -> Body {
    let mut timer = Timer::default();
    body.through(move |source, context| {
        // First, so that what always has something to give ends too.
        if timer.poll_until(context, until).is_ready() {
            let error = Error::new(Kind::UpstreamTimeout, "the response was not over within total_timeout");
            return Poll::Ready(Some(Err(error)));
        }
        source.as_mut().poll_frame(context)
    })
}
