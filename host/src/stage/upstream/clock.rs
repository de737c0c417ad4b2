//! Whose time it is: while a request's body is awaited from its client, the upstream's time stands still.
//!
//! The time to the response's head is the upstream's. It cannot answer what it does not have, so that time begins anew with each part that the client let the gateway wait for;
//! how slow a client may be is judged where its bytes are read. Must not know: protocols, clients.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

use crate::body::Body;
use crate::error::Error;

/// The upstream's clock.
#[derive(Default)]
pub(super) struct Clock {
    /// A part of the body is awaited.
    awaited: Cell<bool>,
    /// When the last part that was awaited came.
    came: Cell<Option<Instant>>,
}

impl Clock {
    /// `body`, watched.
    pub(super) fn watch(self: &Rc<Self>, body: Body) -> Body {
        if body.in_hand().is_some() {
            return body;
        }
        Body::stream(Box::pin(Watched { body, clock: self.clone() }))
    }

    /// What `work` gives, unless `time` goes by in which the client did not let it wait.
    pub(super) async fn in_time<T>(&self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut until = Instant::now() + time;
        loop {
            if let Ok(done) = timeout_at(until, work.as_mut()).await {
                return Some(done);
            }
            let now = Instant::now();
            let began = if self.awaited.get() { Some(now) } else { self.came.get() };
            until = began.map(|began| began + time).filter(|until| *until > now)?;
        }
    }
}

struct Watched {
    body: Body,
    clock: Rc<Clock>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if self.clock.awaited.replace(polled.is_pending()) && polled.is_ready() {
            self.clock.came.set(Some(Instant::now()));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.clock.awaited.set(false);
    }
}
