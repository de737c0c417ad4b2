//! Keep-alive connections of this thread, a new one where none is free, and one exchange over one of them.
//!
//! Each thread has its own pool, so no lock stands between a request and a connection. A connection that the upstream closed while it was
//! idle is noticed when it is taken, and once more when sending fails before anything was sent: then another one is tried. Must not know: balancing, retries on another endpoint.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::http1::{self, Connection, Failed};
use crate::body::{Body, Interim};
use crate::config::{Endpoint, Upstream};
use crate::error::{Error, Kind};
use crate::net::Stream;
use crate::telemetry::Metrics;

type IdleByEndpoint = Rc<RefCell<HashMap<Endpoint, Vec<Idle>>>>;
const BODY_IDLE: Duration = Duration::from_secs(60);

/// This thread's connections to all endpoints.
pub(super) struct Pool {
    idle: IdleByEndpoint,
    metrics: Metrics,
}

/// An exchange that failed before the response's head.
pub(super) struct Attempt {
    /// Why.
    pub(super) error: Error,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    /// No connections yet.
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { idle: Rc::default(), metrics }
    }

    /// One request to one endpoint. `name` is the upstream's, for messages.
    pub(super) async fn attempt(
        &self,
        name: &str,
        upstream: &Upstream,
        endpoint: &Endpoint,
        mut request: http::Request<Body>,
        interim: Option<&Interim>,
    ) -> Result<http::Response<Body>, Attempt> {
        loop {
            let (connection, reused) = match self.take(endpoint, upstream.idle_timeout) {
                Some(connection) => (connection, true),
                None => (self.connect(name, upstream, endpoint).await.map_err(|error| Attempt { error })?, false),
            };
            let again = reused.then(|| copy(&request)).flatten();
            let idle = self.idle.clone();
            let (endpoint_key, max) = (endpoint.clone(), upstream.idle_connections);
            let give_back = Box::new(move |connection| {
                let mut idle = idle.borrow_mut();
                let idle = idle.entry(endpoint_key).or_default();
                if idle.len() < max {
                    idle.push(Idle { connection, since: Instant::now() });
                }
            });
            match http1::exchange(connection, request, interim, BODY_IDLE, give_back).await {
                Ok(response) => return Ok(response),
                Err(Failed { answered: false, .. }) if again.is_some() => {
                    request = again.unwrap_or_default();
                }
                Err(Failed { error, .. }) => {
                    let detail = format!("upstream {name}: {}:{}: {}", endpoint.host, endpoint.port, error.detail);
                    return Err(Attempt { error: Error::new(error.kind, detail) });
                }
            }
        }
    }

    /// Drops connections that were idle for too long; called from time to time.
    pub(super) fn sweep(&self, keep: impl Fn(&Endpoint) -> Option<Duration>) {
        self.idle.borrow_mut().retain(|endpoint, idle| match keep(endpoint) {
            Some(timeout) => {
                idle.retain_mut(|one| one.since.elapsed() < timeout && one.connection.is_open());
                !idle.is_empty()
            }
            None => false,
        });
    }

    /// The most recently used idle connection that is still open.
    fn take(&self, endpoint: &Endpoint, timeout: Duration) -> Option<Box<Connection>> {
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(endpoint)?;
        while let Some(mut one) = idle.pop() {
            if one.since.elapsed() < timeout && one.connection.is_open() {
                return Some(one.connection);
            }
        }
        None
    }

    async fn connect(&self, name: &str, upstream: &Upstream, endpoint: &Endpoint) -> Result<Box<Connection>, Error> {
        let failed = |why: String| {
            Error::new(Kind::UpstreamConnect, format!("upstream {name}: {}:{}: {why}", endpoint.host, endpoint.port))
        };
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = tokio::time::timeout(upstream.connect_timeout, stream)
            .await
            .map_err(|_| failed(format!("no connection within {:?}", upstream.connect_timeout)))?
            .map_err(|error| failed(error.to_string()))?;
        // A gateway writes whole messages: waiting for more would only add delay.
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        self.metrics.upstream_connections.inc();
        Ok(Box::new(Connection::new(Stream::Tcp(stream))))
    }
}

/// The same request once more, where it may be sent twice.
fn copy(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    if !request.method().is_idempotent() {
        return None;
    }
    let mut again = http::Request::new(request.body().replay()?);
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    Some(again)
}
