//! Keep-alive connections of this thread, a new one where none is free, and one exchange over one of them.
//!
//! Each thread has its own pool, so no lock stands between a request and a connection. A connection that the upstream closed while it was
//! idle is noticed when it is taken, and once more when sending fails before anything was sent: then another one is tried. Where `limits.connections` is
//! reached a request waits for a connection of this thread, or for any thread's to end. Must not know: balancing, retries on another endpoint.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::connect::connect;
use super::endpoint::{Counted, State};
use super::group::Group;
use super::retry::is_idempotent;
use crate::body::Body;
use crate::error::{Error, Kind};
use crate::telemetry::Metrics;

type Sender = SendRequest<Body>;

/// This thread's connections to all endpoints.
pub(super) struct Pool {
    shelves: Rc<RefCell<HashMap<u64, Shelf>>>,
    metrics: Metrics,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    /// The upstream.
    pub(super) group: &'a Group,
    /// One of its endpoints.
    pub(super) state: &'a Arc<State>,
}

/// An exchange that failed before the response's head.
pub(super) struct Attempt {
    /// Why.
    pub(super) error: Error,
    /// Whether the upstream may have seen any of it.
    pub(super) sent: bool,
    /// The request, where it is whole and can be sent once more.
    pub(super) request: Option<http::Request<Body>>,
}

/// The connections to one endpoint that are free, and who waits for one.
#[derive(Default)]
struct Shelf {
    idle: Vec<Idle>,
    waiting: VecDeque<oneshot::Sender<Sender>>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

impl Pool {
    /// No connections yet.
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { shelves: Rc::default(), metrics }
    }

    /// One request to one endpoint.
    pub(super) async fn attempt(
        &self,
        to: To<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Attempt> {
        loop {
            let (mut sender, reused) = match self.connection(to).await {
                Ok(found) => found,
                Err(error) => return Err(Attempt { error, sent: false, request: Some(request) }),
            };
            let again = is_idempotent(request.method()).then(|| copy(&request)).flatten();
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.with_return(response, sender, to)),
                Err(mut failed) => match failed.take_message() {
                    // Nothing of it was sent: the connection had just been closed.
                    Some(unsent) if reused => request = unsent,
                    Some(unsent) => {
                        let error = broken(to, &failed.into_error());
                        return Err(Attempt { error, sent: false, request: Some(unsent) });
                    }
                    None => {
                        return Err(Attempt { error: broken(to, &failed.into_error()), sent: true, request: again });
                    }
                },
            }
        }
    }

    /// Drops connections that were idle for too long; called from time to time. `keep` says how long an endpoint's may be; none where nobody uses it any more.
    pub(super) fn sweep(&self, keep: impl Fn(u64) -> Option<Duration>) {
        self.shelves.borrow_mut().retain(|id, shelf| {
            shelf.waiting.retain(|waiting| !waiting.is_closed());
            match keep(*id) {
                Some(timeout) => shelf.idle.retain(|one| one.since.elapsed() < timeout && !one.sender.is_closed()),
                None => shelf.idle.clear(),
            }
            !shelf.idle.is_empty() || !shelf.waiting.is_empty()
        });
    }

    /// A connection that is free, or a new one, or after a while one that became free; and whether it was used before.
    async fn connection(&self, to: To<'_>) -> Result<(Sender, bool), Error> {
        if let Some(sender) = self.take(to).await {
            return Ok((sender, true));
        }
        let limits = &to.group.terms.limits;
        if let Some(counted) = to.state.open(limits.connections) {
            return Ok((self.open(to, counted).await?, false));
        }
        let saturated = |why: &str| {
            let detail = format!("upstream {}: {}: {why}", to.group.name, to.state.label);
            Error::new(Kind::UpstreamSaturated, detail)
        };
        let _pending =
            to.state.wait(limits.pending).ok_or_else(|| saturated("too many requests wait for a connection"))?;
        match tokio::time::timeout(to.group.terms.connect_timeout, self.wait(to)).await {
            Ok(found) => found,
            Err(_) => Err(saturated("no connection became free in time")),
        }
    }

    /// Waits for a connection of this thread to become free, or for one of any thread to end.
    async fn wait(&self, to: To<'_>) -> Result<(Sender, bool), Error> {
        loop {
            let (hand, handed) = oneshot::channel();
            self.shelves.borrow_mut().entry(to.state.id).or_default().waiting.push_back(hand);
            let mut freed = std::pin::pin!(to.state.freed.notified());
            // From here on no end of a connection is missed.
            freed.as_mut().enable();
            if let Some(counted) = to.state.open(to.group.terms.limits.connections) {
                return Ok((self.open(to, counted).await?, false));
            }
            tokio::select! {
                biased;
                handed = handed => {
                    if let Ok(mut sender) = handed && sender.ready().await.is_ok() {
                        return Ok((sender, true));
                    }
                }
                () = freed => {}
            }
        }
    }

    /// The most recently used idle connection that is still open.
    async fn take(&self, to: To<'_>) -> Option<Sender> {
        loop {
            let mut idle = self.shelves.borrow_mut().get_mut(&to.state.id)?.idle.pop()?;
            if idle.since.elapsed() < to.group.terms.idle_timeout && idle.sender.ready().await.is_ok() {
                return Some(idle.sender);
            }
        }
    }

    async fn open(&self, to: To<'_>, counted: Counted) -> Result<Sender, Error> {
        let stream = connect(to.state, &to.group.terms).await?;
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| broken(to, &error))?;
        self.metrics.upstream_connections.inc();
        tokio::task::spawn_local(async move {
            let _counted = counted;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an upstream ended");
            }
        });
        Ok(sender)
    }

    /// Gives the connection back when the response's body has been passed on.
    fn with_return(
        &self,
        response: http::Response<hyper::body::Incoming>,
        sender: Sender,
        to: To<'_>,
    ) -> http::Response<Body> {
        let terms = &to.group.terms;
        // A thread that kept all of a bounded number would starve the others.
        let share = terms.limits.connections.map_or(usize::MAX, |limit| limit / to.group.workers.max(1));
        let back = Back {
            sender: Some(sender),
            shelves: self.shelves.clone(),
            state: to.state.clone(),
            idle_max: terms.idle_connections.min(share),
        };
        response.map(|incoming| Body::stream(incoming).guarded(Box::new(back)))
    }
}

/// The same request once more, if its body is in hand.
pub(super) fn copy(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    let mut again = http::Request::new(request.body().replay()?);
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    Some(again)
}

fn broken(to: To<'_>, error: &hyper::Error) -> Error {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let kind = if error.is_parse() || error.is_user() { Kind::UpstreamProtocol } else { Kind::UpstreamClosed };
    Error::new(kind, format!("upstream {}: {}: {error}{cause}", to.group.name, to.state.label))
}

/// Puts a connection back into the pool when dropped.
struct Back {
    sender: Option<Sender>,
    shelves: Rc<RefCell<HashMap<u64, Shelf>>>,
    state: Arc<State>,
    idle_max: usize,
}

impl Drop for Back {
    fn drop(&mut self) {
        let Some(mut sender) = self.sender.take().filter(|sender| !sender.is_closed()) else { return };
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(self.state.id).or_default();
        while let Some(waiting) = shelf.waiting.pop_front() {
            match waiting.send(sender) {
                Ok(()) => return,
                Err(unwanted) => sender = unwanted,
            }
        }
        // Kept here it would hold up a request of another thread.
        if shelf.idle.len() < self.idle_max && self.state.pending() == 0 {
            shelf.idle.push(Idle { sender, since: Instant::now() });
        }
    }
}
