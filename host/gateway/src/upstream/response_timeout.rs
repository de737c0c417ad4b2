//! The time to a response's head, which stands still while the gateway waits for the client's body.
//!
//! An upstream cannot answer a request that it has not received. So the time starts anew with each
//! part of the body that the gateway had to wait for. The server side limits how slow a client may
//! be. This module does not know: protocols, clients.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use witgate_http::body::Body;

/// The timeout of one exchange's response head.
#[derive(Default)]
pub(super) struct ResponseTimeout {
    /// Whether the gateway waits for the next part of the body.
    is_waiting: Cell<bool>,
    /// When the last part arrived that the gateway had waited for.
    last_arrival: Cell<Option<Instant>>,
}

impl ResponseTimeout {
    /// Observes the request `body` while it is sent.
    pub(super) fn watch_upload(self: &Rc<Self>, body: Body) -> Body {
        let upload = UploadGuard(self.clone());
        body.observe_waiting(move |is_waiting| {
            let UploadGuard(timeout) = &upload;
            if timeout.is_waiting.replace(is_waiting) && !is_waiting {
                timeout.last_arrival.set(Some(Instant::now()));
            }
        })
    }

    /// Runs `work` and returns its result, or none if it takes longer than `time`, not counting the
    /// time that the client's body took. The caller pins `work`, because moving it would copy a
    /// large future.
    pub(super) async fn run<T>(
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
            let began = if self.is_waiting.get() { Some(now) } else { self.last_arrival.get() };
            until = began.map(|began| began + time).filter(|until| *until > now)?;
        }
    }
}

/// Marks that a body is being sent; dropped together with the body.
struct UploadGuard(Rc<ResponseTimeout>);

impl Drop for UploadGuard {
    fn drop(&mut self) {
        self.0.is_waiting.set(false);
    }
}
