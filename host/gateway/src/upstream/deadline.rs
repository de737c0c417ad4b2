//! Ends a response's body at a deadline (`total_timeout`), even if its bytes keep arriving.
//!
//! This module does not know: where the body comes from.

use std::task::Poll;
use std::time::Instant;

use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};
use witgate_http::throughput::Timer;

/// Ends `body` with an error at `until`.
pub(super) fn with_deadline(body: Body, until: Instant) -> Body {
    let mut timer = Timer::default();
    body.map_poll(move |source, context| {
        // The timer comes first, because a source that is always ready would never reach it.
        if timer.poll_until(context, until).is_ready() {
            let error = Error::new(Kind::UpstreamTimeout, "the response was not over within total_timeout");
            return Poll::Ready(Some(Err(error)));
        }
        source.as_mut().poll_frame(context)
    })
}
