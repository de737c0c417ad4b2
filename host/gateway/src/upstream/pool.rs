//! Keep-alive connections of this thread, a new one where none is free, and one exchange over one of them.
//!
//! Each thread has its own pool, so no lock stands between a request and a connection. A connection that the upstream closed while it was
//! idle is noticed when it is taken, and once more when it ends before a byte of the response: then a new one is tried, for what was not sent or may be sent twice. Where `limits.connections` is
//! reached a request waits for a connection of this thread, or for any thread's to end. Must not know: balancing, retries on another endpoint.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::cluster::Group;
use super::connect::{Secured, connect};
use super::endpoint::{Counted, State};
use super::h1::{self, Connection, Failed, GiveBack};
use super::h2::{self, Session};
use crate::net::Stream;
use crate::telemetry::Metrics;
use witgate_config::Protocol;
use witgate_http::body::{Body, Interim};
use witgate_http::error::{Error, Kind};

/// `body_idle_timeout: off`.
const NO_BODY_IDLE: Duration = Duration::from_secs(24 * 3600);

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
    /// Takes interim responses.
    pub(super) interim: Option<&'a Interim>,
    /// When the try began.
    pub(super) now: Instant,
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
    waiting: VecDeque<oneshot::Sender<Box<Connection>>>,
    /// The one connection that all requests share where HTTP/2 is spoken.
    session: Option<Session>,
}

struct Idle {
    connection: Box<Connection>,
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
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Attempt> {
        let result = match to.group.terms.protocol {
            Protocol::Http1 => self.attempt_http1(to, request).await,
            Protocol::H2 => Box::pin(self.attempt_http2(to, request)).await,
        };
        result.map_err(|attempt| Attempt { error: placed(to, attempt.error), ..attempt })
    }

    async fn attempt_http1(
        &self,
        to: To<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Attempt> {
        let mut kept = true;
        loop {
            let (connection, reused) = match self.connection(to, kept).await {
                Ok(found) => found,
                Err(error) => return Err(Attempt { error, sent: false, request: Some(request) }),
            };
            let body_idle = to.group.terms.body_idle_timeout;
            match h1::exchange(connection, reused, request, to.interim, body_idle, self.give_back(to)).await {
                Ok(response) => return Ok(response),
                Err(Failed { error, answered, sent, request: again }) => match again {
                    // The upstream had just closed it, as idle connections are, which says nothing about the endpoint: it has not seen the request, or may see it
                    // twice. Over a new connection, for it may be the request that ends them.
                    Some(again) if is_stale(&error, reused, answered) && (!sent || again.method().is_idempotent()) => {
                        (request, kept) = (again, false);
                    }
                    again => return Err(Attempt { error, sent, request: again }),
                },
            }
        }
    }

    async fn attempt_http2(
        &self,
        to: To<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Attempt> {
        let mut refused = false;
        loop {
            let (mut session, reused) = match self.session(to).await {
                Ok(found) => found,
                Err(error) => return Err(Attempt { error, sent: false, request: Some(request) }),
            };
            if let Err(error) = session.ready().await {
                // Such as after a GOAWAY while other streams go on. Nothing was sent, so even a body that exists once can go over a new one.
                self.forget(to, &session);
                if reused {
                    continue;
                }
                return Err(Attempt { error, sent: false, request: Some(request) });
            }
            let again = copy(&request);
            let body_idle = to.group.terms.body_idle_timeout.unwrap_or(NO_BODY_IDLE);
            match h2::exchange(&mut session, request, to.interim, body_idle).await {
                Ok(response) => return Ok(response),
                Err(failed) => {
                    if failed.is_over {
                        self.forget(to, &session);
                    }
                    match again {
                        // Nobody has looked at it (RFC 9113, section 8.7). Once: an endpoint that refuses every stream has too much to do.
                        Some(again) if failed.untouched && reused && !refused => (request, refused) = (again, true),
                        again => {
                            let again = again.filter(|again| failed.untouched || again.method().is_idempotent());
                            return Err(Attempt { error: failed.error, sent: !failed.untouched, request: again });
                        }
                    }
                }
            }
        }
    }

    /// This thread's HTTP/2 connection to an endpoint, or a new one; and whether it was there before.
    async fn session(&self, to: To<'_>) -> Result<(Session, bool), Error> {
        let found = self.shelves.borrow().get(&to.state.id).and_then(|shelf| shelf.session.clone());
        if let Some(session) = found.filter(|session| session.is_open() && is_current(to, &session.secured)) {
            return Ok((session, true));
        }
        let counted =
            to.state.open(None).ok_or_else(|| Error::new(Kind::UpstreamSaturated, "no connection is free"))?;
        let (stream, secured) = dial(to, Protocol::H2).await?;
        let session = h2::open(stream, secured, counted).await?;
        self.metrics.upstream_connections.inc();
        self.shelves.borrow_mut().entry(to.state.id).or_default().session = Some(session.clone());
        Ok((session, false))
    }

    fn forget(&self, to: To<'_>, session: &Session) {
        if let Some(shelf) = self.shelves.borrow_mut().get_mut(&to.state.id) {
            shelf.session = shelf.session.take().filter(|own| !own.is_same(session));
        }
    }

    /// Drops connections that were idle for too long; called from time to time. `keep` says how long an endpoint's may be; none where nobody uses it any more.
    /// Says how many idle ones are left.
    pub(super) fn sweep(&self, keep: impl Fn(u64) -> Option<Duration>) -> usize {
        let mut shelves = self.shelves.borrow_mut();
        shelves.retain(|id, shelf| {
            shelf.waiting.retain(|waiting| !waiting.is_closed());
            match keep(*id) {
                Some(timeout) => {
                    shelf.idle.retain_mut(|one| one.since.elapsed() < timeout && one.connection.is_open());
                    shelf.session = shelf.session.take().filter(|session| session.is_kept(timeout));
                }
                None => *shelf = Shelf::default(),
            }
            !shelf.idle.is_empty() || !shelf.waiting.is_empty() || shelf.session.is_some()
        });
        shelves.values().map(|shelf| shelf.idle.len()).sum()
    }

    /// A connection that is free if a `kept` one will do, or a new one, or after a while one that became free; and whether it was used before.
    async fn connection(&self, to: To<'_>, kept: bool) -> Result<(Box<Connection>, bool), Error> {
        if kept && let Some(connection) = self.take(to) {
            return Ok((connection, true));
        }
        let limits = &to.group.terms.limits;
        if let Some(counted) = to.state.open(limits.connections) {
            return Ok((Box::pin(self.open(to, counted)).await?, false));
        }
        let saturated = |why: &str| {
            let detail = format!("upstream {}: {}: {why}", to.group.name, to.state.label);
            Error::new(Kind::UpstreamSaturated, detail)
        };
        let _pending =
            to.state.wait(limits.pending).ok_or_else(|| saturated("too many requests wait for a connection"))?;
        match tokio::time::timeout(to.group.terms.connect_timeout, Box::pin(self.wait(to))).await {
            Ok(found) => found,
            Err(_) => Err(saturated("no connection became free in time")),
        }
    }

    /// Waits for a connection of this thread to become free, or for one of any thread to end.
    async fn wait(&self, to: To<'_>) -> Result<(Box<Connection>, bool), Error> {
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
                    if let Ok(mut connection) = handed && is_current(to, &connection.secured) && connection.is_open() {
                        return Ok((connection, true));
                    }
                }
                () = freed => {}
            }
        }
    }

    /// The most recently used idle connection that is still open.
    fn take(&self, to: To<'_>) -> Option<Box<Connection>> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(&to.state.id)?;
        while let Some(mut one) = shelf.idle.pop() {
            let fits = to.now.saturating_duration_since(one.since) < to.group.terms.idle_timeout
                && is_current(to, &one.connection.secured);
            if fits && one.connection.is_open() {
                return Some(one.connection);
            }
        }
        None
    }

    async fn open(&self, to: To<'_>, counted: Counted) -> Result<Box<Connection>, Error> {
        let (stream, secured) = dial(to, Protocol::Http1).await?;
        self.metrics.upstream_connections.inc();
        Ok(Box::new(Connection::new(stream, secured, counted)))
    }

    /// Takes a connection back once its response has been passed on: to who waits for one, else onto the shelf.
    fn give_back(&self, to: To<'_>) -> GiveBack {
        let terms = &to.group.terms;
        // A thread that kept all of a bounded number would starve the others.
        let share = terms.limits.connections.map_or(usize::MAX, |limit| limit / to.group.workers.max(1));
        let idle_max = terms.idle_connections.min(share);
        let (shelves, state) = (self.shelves.clone(), to.state.clone());
        Box::new(move |mut connection| {
            let mut shelves = shelves.borrow_mut();
            let shelf = shelves.entry(state.id).or_default();
            while let Some(waiting) = shelf.waiting.pop_front() {
                match waiting.send(connection) {
                    Ok(()) => return,
                    Err(unwanted) => connection = unwanted,
                }
            }
            // Kept here it would hold up a request of another thread.
            if shelf.idle.len() < idle_max && state.pending() == 0 {
                shelf.idle.push(Idle { connection, since: Instant::now() });
            }
        })
    }
}

async fn dial(to: To<'_>, protocol: Protocol) -> Result<(Stream, Secured), Error> {
    connect(to.state, &to.group.terms, to.group.tls.as_deref(), protocol).await
}

/// Whether a connection trusts and shows what a new one would: certificates may have been replaced, or terms, since it was made.
fn is_current(to: To<'_>, secured: &Secured) -> bool {
    match (&to.group.tls, secured) {
        (None, None) => true,
        (Some(tls), Some(secured)) => Arc::ptr_eq(&tls.current(), secured),
        _ => false,
    }
}

/// The same request once more, if its body is in hand.
pub(super) fn copy(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    let mut again = http::Request::new(request.body().replay()?);
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    if let Some(upgrade) = request.extensions().get::<witgate_runtime::exchange::Upgrade>() {
        again.extensions_mut().insert(upgrade.clone());
    }
    Some(again)
}

/// Whether a connection that was kept turned out to be closed.
fn is_stale(error: &Error, reused: bool, answered: bool) -> bool {
    reused && !answered && error.kind == Kind::UpstreamClosed
}

/// An error with the endpoint's name.
fn placed(to: To<'_>, error: Error) -> Error {
    if error.detail.starts_with("upstream ") {
        return error;
    }
    Error::new(error.kind, format!("upstream {}: {}: {}", to.group.name, to.state.label, error.detail))
}
