//! The connection pool of one thread: sends one request to one endpoint over a pooled or new
//! connection.
//!
//! Each thread has its own pool, so no lock stands between a request and a connection. The price is
//! that a thread cannot use the idle connections of another. An upstream may close a connection
//! while it is idle; the pool checks this before reuse. If the connection closes before a byte of
//! the response, it retries on a new one, provided that the request was not sent or is idempotent.
//! At `limits.connections` a request waits for a connection of this thread to become idle or of any
//! thread to end. Over HTTP/2 it waits for a stream if all connections have no free one. This
//! module does not know: balancing, retries on other endpoints.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::connect::{TlsConfig, connect};
use super::endpoint::{ConnectionPermit, Endpoint};
use super::h1::{self, Connection, ExchangeError, GiveBack};
use super::h2::{self, Next, Sessions, StreamSlot};
use crate::net::Stream;
use crate::telemetry::Metrics;
use witgate_config::Protocol;
use witgate_http::body::{Body, InterimSink};
use witgate_http::error::{Error, Kind};

/// The stall limit for `body_idle_timeout: off`, which HTTP/2 bodies cannot express otherwise.
const NO_BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// This thread's connections to all endpoints.
pub(super) struct Pool {
    /// By the endpoint's id.
    hosts: Rc<RefCell<HashMap<u64, HostPool>>>,
    metrics: Metrics,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) cluster: &'a Cluster,
    /// One of the cluster's endpoints.
    pub(super) endpoint: &'a Arc<Endpoint>,
    /// Receives interim responses.
    pub(super) interim: Option<&'a InterimSink>,
    /// When the attempt began.
    pub(super) now: Instant,
    /// Receives the time that a new connection took.
    pub(super) connect_time: &'a Cell<Option<Duration>>,
}

/// An attempt that failed before the response's head arrived.
pub(super) struct AttemptError {
    pub(super) error: Error,
    /// Whether the upstream may have seen any part of the request.
    pub(super) sent: bool,
    /// The request, if it is complete and can be sent again.
    pub(super) request: Option<http::Request<Body>>,
}

/// The connections to one endpoint that are not in use, and the requests that wait for one.
#[derive(Default)]
struct HostPool {
    idle: Vec<IdleConnection>,
    waiters: VecDeque<oneshot::Sender<Box<Connection>>>,
    /// The HTTP/2 connections.
    sessions: Sessions,
}

struct IdleConnection {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    /// Creates an empty pool.
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { hosts: Rc::default(), metrics }
    }

    /// Sends one request to one endpoint. The detail of an error names the endpoint.
    pub(super) async fn attempt(
        &self,
        target: Target<'_>,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, AttemptError> {
        let result = match target.cluster.settings.protocol {
            Protocol::Http1 => self.attempt_http1(target, request).await,
            Protocol::H2 => Box::pin(self.attempt_http2(target, request)).await,
        };
        result.map_err(|failed| AttemptError { error: with_endpoint(target, failed.error), ..failed })
    }

    async fn attempt_http1(
        &self,
        target: Target<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, AttemptError> {
        let mut may_reuse = true;
        loop {
            let (connection, reused) = match self.connection(target, may_reuse).await {
                Ok(found) => found,
                Err(error) => return Err(AttemptError { error, sent: false, request: Some(request) }),
            };
            let settings = &target.cluster.settings;
            let options = h1::Options {
                reused,
                interim: target.interim,
                body_idle: settings.body_idle_timeout,
                head_bytes: settings.response_head_bytes,
            };
            match h1::exchange(connection, options, request, self.give_back(target)).await {
                Ok(response) => return Ok(response),
                Err(ExchangeError { error, answered, sent, request: again }) => match again {
                    // The upstream closed an idle connection, which says nothing about its health.
                    // The next try uses a new connection, since this request may be what makes the
                    // upstream close connections.
                    Some(again) if is_stale(&error, reused, answered) && (!sent || again.method().is_idempotent()) => {
                        (request, may_reuse) = (again, false);
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
        let mut was_repeated = false;
        loop {
            let (slot, reused) = match self.stream(target).await {
                Ok(found) => found,
                Err(error) => return Err(AttemptError { error, sent: false, request: Some(request) }),
            };
            let again = try_clone(&request);
            let connection = slot.connection();
            let body_idle = target.cluster.settings.body_idle_timeout.unwrap_or(NO_BODY_IDLE_TIMEOUT);
            match h2::exchange(slot, request, target.interim, body_idle).await {
                Ok(response) => return Ok(response),
                Err(failed) => match again {
                    // The upstream did not process it (RFC 9113, section 8.7), or its connection
                    // was dead, which says nothing about its health. Only one such repetition: an
                    // endpoint that refuses every stream is overloaded.
                    Some(again)
                        if reused
                            && !was_repeated
                            && (failed.unprocessed || (connection.was_dead() && again.method().is_idempotent())) =>
                    {
                        (request, was_repeated) = (again, true);
                    }
                    again => {
                        let again = again.filter(|again| failed.unprocessed || again.method().is_idempotent());
                        return Err(AttemptError { error: failed.error, sent: !failed.unprocessed, request: again });
                    }
                },
            }
        }
    }

    /// Begins a stream to an endpoint, over one of this thread's connections or a new one. Returns
    /// also whether the connection existed before.
    async fn stream(&self, target: Target<'_>) -> Result<(StreamSlot, bool), Error> {
        let settings = &target.cluster.settings;
        let mut wait = None;
        loop {
            let next = self.with_sessions(target, |sessions| {
                sessions.next(settings.http2.connections, |tls_config| is_current(target, tls_config))
            });
            let freed = match next {
                Next::Stream(slot) => return Ok((slot, true)),
                Next::AwaitDial(dial) => {
                    dial.ended().await?;
                    continue;
                }
                Next::Dial(guard) => match target.endpoint.begin_connection(settings.limits.connections) {
                    Some(permit) => {
                        let made = self.open_session(target, permit).await;
                        return made.inspect_err(|error| guard.fail(error)).map(|slot| (slot, false));
                    }
                    None => self.with_sessions(target, |sessions| sessions.freed()),
                },
                Next::AwaitStream(freed) => freed,
            };
            if wait.is_none() {
                let permit = target.endpoint.begin_wait(settings.limits.pending);
                let permit = permit.ok_or_else(|| saturated("too many requests wait for a stream"))?;
                wait = Some((permit, tokio::time::Instant::now() + settings.connect_timeout));
            }
            let until = wait.as_ref().map_or_else(tokio::time::Instant::now, |(_, until)| *until);
            tokio::select! {
                () = freed.notified() => {}
                () = target.endpoint.connection_ended.notified() => {}
                () = tokio::time::sleep_until(until) => {
                    return Err(saturated("all streams of its connections stay in use"));
                }
            }
        }
    }

    async fn open_session(&self, target: Target<'_>, permit: ConnectionPermit) -> Result<StreamSlot, Error> {
        let freed = self.with_sessions(target, |sessions| sessions.freed());
        let (stream, tls_config) = dial(target, Protocol::H2).await?;
        let session = h2::open(stream, tls_config, Some(permit), &target.cluster.settings, freed).await?;
        self.metrics.upstream_connections.inc();
        let slot = session.begin_stream().ok_or_else(|| saturated("a new connection allows no stream"));
        self.with_sessions(target, |sessions| sessions.add(session));
        slot
    }

    fn with_sessions<T>(&self, target: Target<'_>, work: impl FnOnce(&mut Sessions) -> T) -> T {
        work(&mut self.hosts.borrow_mut().entry(target.endpoint.id).or_default().sessions)
    }

    /// A request to an endpoint that began at `began` had no response in time: an HTTP/2 connection
    /// that was silent for all that time takes no more streams until its peer answers a PING.
    pub(super) fn timed_out(&self, endpoint: &Endpoint, began: tokio::time::Instant) {
        if let Some(host) = self.hosts.borrow().get(&endpoint.id) {
            host.sessions.timed_out(began);
        }
    }

    /// Drops connections that were idle for too long. `idle_timeout` returns the limit of an
    /// endpoint, or none if the endpoint is not configured any more. Returns the number of idle
    /// connections that are left. The thread calls this periodically.
    pub(super) fn sweep(&self, idle_timeout: impl Fn(u64) -> Option<Duration>) -> usize {
        let mut hosts = self.hosts.borrow_mut();
        hosts.retain(|id, host| {
            host.waiters.retain(|waiter| !waiter.is_closed());
            match idle_timeout(*id) {
                Some(timeout) => {
                    host.idle.retain_mut(|idle| idle.since.elapsed() < timeout && idle.connection.is_open());
                    host.sessions.sweep(timeout);
                }
                None => *host = HostPool::default(),
            }
            !host.idle.is_empty() || !host.waiters.is_empty() || !host.sessions.is_empty()
        });
        hosts.values().map(|host| host.idle.len()).sum()
    }

    /// Returns an idle connection if `may_reuse`, else a new one, else one that becomes free in
    /// time; and whether it was used before.
    async fn connection(&self, target: Target<'_>, may_reuse: bool) -> Result<(Box<Connection>, bool), Error> {
        if may_reuse && let Some(connection) = self.take_idle(target) {
            return Ok((connection, true));
        }
        let settings = &target.cluster.settings;
        if let Some(permit) = target.endpoint.begin_connection(settings.limits.connections) {
            return Ok((Box::pin(self.open(target, permit)).await?, false));
        }
        let _permit = target
            .endpoint
            .begin_wait(settings.limits.pending)
            .ok_or_else(|| saturated("too many requests wait for a connection"))?;
        match tokio::time::timeout(settings.connect_timeout, Box::pin(self.wait(target))).await {
            Ok(found) => found,
            Err(_) => Err(saturated("no connection became free in time")),
        }
    }

    /// Waits until a connection of this thread becomes free, or one of any thread ends.
    async fn wait(&self, target: Target<'_>) -> Result<(Box<Connection>, bool), Error> {
        loop {
            let (sender, receiver) = oneshot::channel();
            self.hosts.borrow_mut().entry(target.endpoint.id).or_default().waiters.push_back(sender);
            let mut ended = std::pin::pin!(target.endpoint.connection_ended.notified());
            // Registered before the limit is checked, so that no end of a connection is missed.
            ended.as_mut().enable();
            if let Some(permit) = target.endpoint.begin_connection(target.cluster.settings.limits.connections) {
                return Ok((self.open(target, permit).await?, false));
            }
            tokio::select! {
                biased;
                received = receiver => {
                    if let Ok(mut connection) = received
                        && is_current(target, &connection.tls_config)
                        && connection.is_open()
                    {
                        return Ok((connection, true));
                    }
                }
                () = ended => {}
            }
        }
    }

    /// Takes the most recently used idle connection that is still open.
    fn take_idle(&self, target: Target<'_>) -> Option<Box<Connection>> {
        let mut hosts = self.hosts.borrow_mut();
        let host = hosts.get_mut(&target.endpoint.id)?;
        while let Some(mut idle) = host.idle.pop() {
            let is_fresh = target.now.saturating_duration_since(idle.since) < target.cluster.settings.idle_timeout;
            if is_fresh && is_current(target, &idle.connection.tls_config) && idle.connection.is_open() {
                return Some(idle.connection);
            }
        }
        None
    }

    async fn open(&self, target: Target<'_>, permit: ConnectionPermit) -> Result<Box<Connection>, Error> {
        let (stream, tls_config) = dial(target, Protocol::Http1).await?;
        self.metrics.upstream_connections.inc();
        Ok(Box::new(Connection::new(stream, tls_config, Some(permit))))
    }

    /// Returns a callback that takes a connection back after its response was read: a waiter gets
    /// it, else it becomes idle.
    fn give_back(&self, target: Target<'_>) -> GiveBack {
        let settings = &target.cluster.settings;
        // A thread that kept more than its share of a limited number would starve the others.
        let share = settings.limits.connections.map_or(usize::MAX, |limit| limit / target.cluster.workers.max(1));
        let idle_max = settings.idle_connections.min(share);
        let (hosts, endpoint) = (self.hosts.clone(), target.endpoint.clone());
        Box::new(move |mut connection| {
            let mut hosts = hosts.borrow_mut();
            let host = hosts.entry(endpoint.id).or_default();
            while let Some(waiter) = host.waiters.pop_front() {
                match waiter.send(connection) {
                    Ok(()) => return,
                    Err(returned) => connection = returned,
                }
            }
            // If a request of another thread waits, closing the connection lets it open its own.
            if host.idle.len() < idle_max && endpoint.pending() == 0 {
                host.idle.push(IdleConnection { connection, since: Instant::now() });
            }
        })
    }
}

fn saturated(why: &str) -> Error {
    Error::new(Kind::UpstreamSaturated, why)
}

async fn dial(target: Target<'_>, protocol: Protocol) -> Result<(Stream, TlsConfig), Error> {
    let started = Instant::now();
    let connected = connect(target.endpoint, &target.cluster.settings, target.cluster.tls.as_deref(), protocol).await;
    target.connect_time.set(Some(started.elapsed()));
    connected
}

/// Whether a connection was made with the current TLS configuration: a reload may have replaced
/// certificates or settings since.
fn is_current(target: Target<'_>, tls_config: &TlsConfig) -> bool {
    match (&target.cluster.tls, tls_config) {
        (None, None) => true,
        (Some(tls), Some(used)) => Arc::ptr_eq(&tls.current(), used),
        _ => false,
    }
}

/// Copies a request, if its body is in memory.
pub(super) fn try_clone(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    let mut copy = http::Request::new(request.body().try_clone()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    if let Some(upgrade) = request.extensions().get::<witgate_runtime::exchange::Upgrade>() {
        copy.extensions_mut().insert(upgrade.clone());
    }
    Some(copy)
}

/// Whether the upstream closed a reused connection before it answered.
fn is_stale(error: &Error, reused: bool, answered: bool) -> bool {
    reused && !answered && error.kind == Kind::UpstreamClosed
}

fn with_endpoint(target: Target<'_>, error: Error) -> Error {
    Error::new(error.kind, format!("upstream {}: {}: {}", target.cluster.name, target.endpoint.label, error.detail))
}
