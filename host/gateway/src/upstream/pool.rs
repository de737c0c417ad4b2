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

use super::cluster::Cluster;
use super::connect::{TlsConfig, connect};
use super::endpoint::{EndpointPermit, Endpoint};
use super::h1::{self, Connection, Failed, GiveBack};
use super::h2::{self, Session};
use crate::net::Stream;
use crate::telemetry::Metrics;
use witgate_config::Protocol;
use witgate_http::body::{Body, InterimSink};
use witgate_http::error::{Error, Kind};

/// `body_idle_timeout: off`.
const NO_BODY_IDLE: Duration = Duration::from_secs(24 * 3600);

/// This thread's connections to all endpoints.
pub(super) struct Pool {
    hosts: Rc<RefCell<HashMap<u64, HostPool>>>,
    metrics: Metrics,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The upstream.
    pub(super) cluster: &'a Cluster,
    /// One of its endpoints.
    pub(super) endpoint: &'a Arc<Endpoint>,
    /// Takes interim responses.
    pub(super) interim: Option<&'a InterimSink>,
    /// When the try began.
    pub(super) now: Instant,
}

/// An exchange that failed before the response's head.
pub(super) struct AttemptError {
    /// Why.
    pub(super) error: Error,
    /// Whether the upstream may have seen any of it.
    pub(super) sent: bool,
    /// The request, where it is whole and can be sent once more.
    pub(super) request: Option<http::Request<Body>>,
}

/// The connections to one endpoint that are free, and who waits for one.
#[derive(Default)]
struct HostPool {
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
        Self { hosts: Rc::default(), metrics }
    }

    /// One request to one endpoint.
    pub(super) async fn attempt(
        &self,
        target: Target<'_>,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, AttemptError> {
        let result = match target.cluster.settings.protocol {
            Protocol::Http1 => self.attempt_http1(target, request).await,
            Protocol::H2 => Box::pin(self.attempt_http2(target, request)).await,
        };
        result.map_err(|attempt| AttemptError { error: placed(target, attempt.error), ..attempt })
    }

    async fn attempt_http1(
        &self,
        target: Target<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, AttemptError> {
        let mut kept = true;
        loop {
            let (connection, reused) = match self.connection(target, kept).await {
                Ok(found) => found,
                Err(error) => return Err(AttemptError { error, sent: false, request: Some(request) }),
            };
            let body_idle = target.cluster.settings.body_idle_timeout;
            match h1::exchange(connection, reused, request, target.interim, body_idle, self.give_back(target)).await {
                Ok(response) => return Ok(response),
                Err(Failed { error, answered, sent, request: again }) => match again {
                    // The upstream had just closed it, as idle connections are, which says nothing about the endpoint: it has not seen the request, or may see it
                    // twice. Over a new connection, for it may be the request that ends them.
                    Some(again) if is_stale(&error, reused, answered) && (!sent || again.method().is_idempotent()) => {
                        (request, kept) = (again, false);
                    }
                    again => return Err(AttemptError { error, sent, request: again }),
                },
            }
        }
    }

    async fn attempt_http2(
        &self,
        target: Target<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, AttemptError> {
        let mut refused = false;
        loop {
            let (mut session, reused) = match self.session(target).await {
                Ok(found) => found,
                Err(error) => return Err(AttemptError { error, sent: false, request: Some(request) }),
            };
            if let Err(error) = session.ready().await {
                // Such as after a GOAWAY while other streams go on. Nothing was sent, so even a body that exists once can go over a new one.
                self.forget(target, &session);
                if reused {
                    continue;
                }
                return Err(AttemptError { error, sent: false, request: Some(request) });
            }
            let again = copy(&request);
            let body_idle = target.cluster.settings.body_idle_timeout.unwrap_or(NO_BODY_IDLE);
            match h2::exchange(&mut session, request, target.interim, body_idle).await {
                Ok(response) => return Ok(response),
                Err(failed) => {
                    if failed.is_over {
                        self.forget(target, &session);
                    }
                    match again {
                        // Nobody has looked at it (RFC 9113, section 8.7). Once: an endpoint that refuses every stream has too much to do.
                        Some(again) if failed.untouched && reused && !refused => (request, refused) = (again, true),
                        again => {
                            let again = again.filter(|again| failed.untouched || again.method().is_idempotent());
                            return Err(AttemptError { error: failed.error, sent: !failed.untouched, request: again });
                        }
                    }
                }
            }
        }
    }

    /// This thread's HTTP/2 connection to an endpoint, or a new one; and whether it was there before.
    async fn session(&self, target: Target<'_>) -> Result<(Session, bool), Error> {
        let found = self.hosts.borrow().get(&target.endpoint.id).and_then(|host| host.session.clone());
        if let Some(session) = found.filter(|session| session.is_open() && is_current(target, &session.tls_config)) {
            return Ok((session, true));
        }
        let permit =
            target.endpoint.open(None).ok_or_else(|| Error::new(Kind::UpstreamSaturated, "no connection is free"))?;
        let (stream, tls_config) = dial(target, Protocol::H2).await?;
        let session = h2::open(stream, tls_config, permit).await?;
        self.metrics.upstream_connections.inc();
        self.hosts.borrow_mut().entry(target.endpoint.id).or_default().session = Some(session.clone());
        Ok((session, false))
    }

    fn forget(&self, target: Target<'_>, session: &Session) {
        if let Some(host) = self.hosts.borrow_mut().get_mut(&target.endpoint.id) {
            host.session = host.session.take().filter(|per_thread| !per_thread.is_same(session));
        }
    }

    /// Drops connections that were idle for too long; called from time to time. `keep` says how long an endpoint's may be; none where nobody uses it any more.
    /// Says how many idle ones are left.
    pub(super) fn sweep(&self, keep: impl Fn(u64) -> Option<Duration>) -> usize {
        let mut hosts = self.hosts.borrow_mut();
        hosts.retain(|id, host| {
            host.waiting.retain(|waiting| !waiting.is_closed());
            match keep(*id) {
                Some(timeout) => {
                    host.idle.retain_mut(|one| one.since.elapsed() < timeout && one.connection.is_open());
                    host.session = host.session.take().filter(|session| session.is_kept(timeout));
                }
                None => *host = HostPool::default(),
            }
            !host.idle.is_empty() || !host.waiting.is_empty() || host.session.is_some()
        });
        hosts.values().map(|host| host.idle.len()).sum()
    }

    /// A connection that is free if a `kept` one will do, or a new one, or after a while one that became free; and whether it was used before.
    async fn connection(&self, target: Target<'_>, kept: bool) -> Result<(Box<Connection>, bool), Error> {
        if kept && let Some(connection) = self.take(target) {
            return Ok((connection, true));
        }
        let limits = &target.cluster.settings.limits;
        if let Some(permit) = target.endpoint.open(limits.connections) {
            return Ok((Box::pin(self.open(target, permit)).await?, false));
        }
        let saturated = |why: &str| {
            let detail = format!("upstream {}: {}: {why}", target.cluster.name, target.endpoint.label);
            Error::new(Kind::UpstreamSaturated, detail)
        };
        let _pending =
            target.endpoint.wait(limits.pending).ok_or_else(|| saturated("too many requests wait for a connection"))?;
        match tokio::time::timeout(target.cluster.settings.connect_timeout, Box::pin(self.wait(target))).await {
            Ok(found) => found,
            Err(_) => Err(saturated("no connection became free in time")),
        }
    }

    /// Waits for a connection of this thread to become free, or for one of any thread to end.
    async fn wait(&self, target: Target<'_>) -> Result<(Box<Connection>, bool), Error> {
        loop {
            let (hand, handed) = oneshot::channel();
            self.hosts.borrow_mut().entry(target.endpoint.id).or_default().waiting.push_back(hand);
            let mut freed = std::pin::pin!(target.endpoint.freed.notified());
            // From here on no end of a connection is missed.
            freed.as_mut().enable();
            if let Some(permit) = target.endpoint.open(target.cluster.settings.limits.connections) {
                return Ok((self.open(target, permit).await?, false));
            }
            tokio::select! {
                biased;
                handed = handed => {
                    if let Ok(mut connection) = handed && is_current(target, &connection.tls_config) && connection.is_open() {
                        return Ok((connection, true));
                    }
                }
                () = freed => {}
            }
        }
    }

    /// The most recently used idle connection that is still open.
    fn take(&self, target: Target<'_>) -> Option<Box<Connection>> {
        let mut hosts = self.hosts.borrow_mut();
        let host = hosts.get_mut(&target.endpoint.id)?;
        while let Some(mut one) = host.idle.pop() {
            let fits = target.now.saturating_duration_since(one.since) < target.cluster.settings.idle_timeout
                && is_current(target, &one.connection.tls_config);
            if fits && one.connection.is_open() {
                return Some(one.connection);
            }
        }
        None
    }

    async fn open(&self, target: Target<'_>, permit: EndpointPermit) -> Result<Box<Connection>, Error> {
        let (stream, tls_config) = dial(target, Protocol::Http1).await?;
        self.metrics.upstream_connections.inc();
        Ok(Box::new(Connection::new(stream, tls_config, permit)))
    }

    /// Takes a connection back once its response has been passed on: to who waits for one, else onto the host.
    fn give_back(&self, target: Target<'_>) -> GiveBack {
        let settings = &target.cluster.settings;
        // A thread that kept all of a bounded number would starve the others.
        let share = settings.limits.connections.map_or(usize::MAX, |limit| limit / target.cluster.workers.max(1));
        let idle_max = settings.idle_connections.min(share);
        let (hosts, endpoint) = (self.hosts.clone(), target.endpoint.clone());
        Box::new(move |mut connection| {
            let mut hosts = hosts.borrow_mut();
            let host = hosts.entry(endpoint.id).or_default();
            while let Some(waiting) = host.waiting.pop_front() {
                match waiting.send(connection) {
                    Ok(()) => return,
                    Err(unwanted) => connection = unwanted,
                }
            }
            // Kept here it would hold up a request of another thread.
            if host.idle.len() < idle_max && endpoint.pending() == 0 {
                host.idle.push(Idle { connection, since: Instant::now() });
            }
        })
    }
}

async fn dial(target: Target<'_>, protocol: Protocol) -> Result<(Stream, TlsConfig), Error> {
    connect(target.endpoint, &target.cluster.settings, target.cluster.tls.as_deref(), protocol).await
}

/// Whether a connection trusts and shows what a new one would: certificates may have been replaced, or settings, since it was made.
fn is_current(target: Target<'_>, tls_config: &TlsConfig) -> bool {
    match (&target.cluster.tls, tls_config) {
        (None, None) => true,
        (Some(tls), Some(tls_config)) => Arc::ptr_eq(&tls.current(), tls_config),
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
fn placed(target: Target<'_>, error: Error) -> Error {
    if error.detail.starts_with("upstream ") {
        return error;
    }
    Error::new(error.kind, format!("upstream {}: {}: {}", target.cluster.name, target.endpoint.label, error.detail))
}
