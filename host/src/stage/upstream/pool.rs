//! Keep-alive connections of this thread, a new one where none is free, and one exchange over one of them.
//!
//! Each thread has its own pool, so no lock stands between a request and a connection. A connection that the upstream closed while it was
//! idle is noticed when it is taken, and once more when sending fails before anything was sent: then another one is tried. Must not know: balancing, retries on another endpoint.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::Body;
use crate::config::{Endpoint, Upstream};
use crate::error::{Error, Kind};
use crate::telemetry::Metrics;

type Sender = SendRequest<Body>;
type IdleByEndpoint = Rc<RefCell<HashMap<Endpoint, Vec<Idle>>>>;

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
    sender: Sender,
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
    ) -> Result<http::Response<Body>, Attempt> {
        let broken = |error: hyper::Error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Error::new(
                Kind::UpstreamProtocol,
                format!("upstream {name}: {}:{}: {error}{cause}", endpoint.host, endpoint.port),
            )
        };
        loop {
            let (mut sender, reused) = match self.take(endpoint, upstream.idle_timeout).await {
                Some(sender) => (sender, true),
                None => (self.connect(name, upstream, endpoint).await.map_err(|error| Attempt { error })?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.with_return(response, sender, endpoint, upstream)),
                Err(mut failed) => match failed.take_message() {
                    // Nothing of it was sent: the connection had just been closed.
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(Attempt { error: broken(failed.into_error()) }),
                },
            }
        }
    }

    /// Drops connections that were idle for too long; called from time to time.
    pub(super) fn sweep(&self, keep: impl Fn(&Endpoint) -> Option<Duration>) {
        self.idle.borrow_mut().retain(|endpoint, idle| match keep(endpoint) {
            Some(timeout) => {
                idle.retain(|one| one.since.elapsed() < timeout && !one.sender.is_closed());
                !idle.is_empty()
            }
            None => false,
        });
    }

    /// The most recently used idle connection that is still open.
    async fn take(&self, endpoint: &Endpoint, timeout: Duration) -> Option<Sender> {
        loop {
            let mut idle = self.idle.borrow_mut().get_mut(endpoint)?.pop()?;
            if idle.since.elapsed() < timeout && idle.sender.ready().await.is_ok() {
                return Some(idle.sender);
            }
        }
    }

    async fn connect(&self, name: &str, upstream: &Upstream, endpoint: &Endpoint) -> Result<Sender, Error> {
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
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        self.metrics.upstream_connections.inc();
        tokio::task::spawn_local(async move {
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
        endpoint: &Endpoint,
        upstream: &Upstream,
    ) -> http::Response<Body> {
        let back = Back {
            sender: Some(sender),
            idle: self.idle.clone(),
            endpoint: endpoint.clone(),
            max: upstream.idle_connections,
        };
        response.map(|incoming| Body::stream(incoming).guarded(Box::new(back)))
    }
}

/// Puts a connection back into the pool when dropped.
struct Back {
    sender: Option<Sender>,
    idle: IdleByEndpoint,
    endpoint: Endpoint,
    max: usize,
}

impl Drop for Back {
    fn drop(&mut self) {
        let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) else { return };
        let mut pools = self.idle.borrow_mut();
        let idle = match pools.get_mut(&self.endpoint) {
            Some(idle) => idle,
            None => pools.entry(self.endpoint.clone()).or_default(),
        };
        if idle.len() < self.max {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}
