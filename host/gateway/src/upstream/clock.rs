//! Whose time it is: while a request's body is awaited from its client, the upstream's time stands still.
//!
//! The time to the response's head is the upstream's. It cannot answer what it does not have, so that time begins anew with each part that the client let the gateway wait for;
//! how slow a client may be is judged where its bytes are read. Must not know: protocols, clients.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use witgate_http::body::Body;

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
        let awaiting = Awaiting(self.clone());
        body.through(move |source, context| {
            let Awaiting(clock) = &awaiting;
            let polled = source.as_mut().poll_frame(context);
            if clock.awaited.replace(polled.is_pending()) && polled.is_ready() {
                clock.came.set(Some(Instant::now()));
            }
            polled
        })
    }

    /// What `work` gives, unless `time` goes by from `now` on in which the client did not let it wait. Pinned by the caller: it is large, and would be copied on its way here.
    pub(super) async fn in_time<T>(
        &self,
        now: Instant,
        time: Duration,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut until = now + time;
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

/// A body on its way; dropped with it.
struct Awaiting(Rc<Clock>);

impl Drop for Awaiting {
    fn drop(&mut self) {
        self.0.awaited.set(false);
    }
}
