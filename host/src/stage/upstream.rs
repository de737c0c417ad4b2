//! Sends a request to an upstream: keep-alive connections of this thread, a new one where none is free.
//!
//! Each thread has its own pool, so no lock stands between a request and a connection. A connection that the upstream closed while it was
//! idle is noticed when it is taken, and once more when sending fails before anything was sent: then another one is tried. Must not know: routes, filters, clients.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http_body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::Body;
use crate::config::{Endpoint, Target, Upstream};
use crate::error::{Error, Kind};
use crate::telemetry::Metrics;

type Sender = SendRequest<Body>;

/// This thread's connections to all upstreams.
pub struct Pools {
    idle: Rc<RefCell<HashMap<Endpoint, Vec<Idle>>>>,
    turn: RefCell<HashMap<String, usize>>,
    metrics: Metrics,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

impl Pools {
    /// No connections yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { idle: Rc::default(), turn: RefCell::default(), metrics }
    }

    /// Sends `request` and gives the response's head; its body streams. `name` is the upstream's, for messages.
    pub async fn send(
        &self,
        name: &str,
        upstream: &Upstream,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Error> {
        match &upstream.target {
            Target::Echo => echo(request, upstream.timeout).await,
            Target::Endpoints(endpoints) => {
                let endpoint = &endpoints[self.next_turn(name) % endpoints.len()];
                match tokio::time::timeout(upstream.timeout, self.exchange(name, upstream, endpoint, request)).await {
                    Ok(result) => result,
                    Err(_) => Err(Error::new(
                        Kind::UpstreamTimeout,
                        format!(
                            "upstream {name}: {}:{} sent no response within {:?}",
                            endpoint.host, endpoint.port, upstream.timeout
                        ),
                    )),
                }
            }
        }
    }

    /// Drops connections that were idle for too long; called from time to time.
    pub fn sweep(&self, keep: impl Fn(&Endpoint) -> Option<Duration>) {
        self.idle.borrow_mut().retain(|endpoint, idle| match keep(endpoint) {
            Some(timeout) => {
                idle.retain(|one| one.since.elapsed() < timeout && !one.sender.is_closed());
                !idle.is_empty()
            }
            None => false,
        });
    }

    fn next_turn(&self, name: &str) -> usize {
        let mut turns = self.turn.borrow_mut();
        match turns.get_mut(name) {
            Some(turn) => {
                *turn = turn.wrapping_add(1);
                *turn
            }
            None => {
                turns.insert(name.to_owned(), 0);
                0
            }
        }
    }

    async fn exchange(
        &self,
        name: &str,
        upstream: &Upstream,
        endpoint: &Endpoint,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Error> {
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
                None => (self.connect(name, upstream, endpoint).await?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.with_return(response, sender, endpoint, upstream)),
                Err(mut failed) => match failed.take_message() {
                    // Nothing of it was sent: the connection had just been closed.
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(broken(failed.into_error())),
                },
            }
        }
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
    idle: Rc<RefCell<HashMap<Endpoint, Vec<Idle>>>>,
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

/// The embedded upstream: answers with what it received, as JSON.
async fn echo(request: http::Request<Body>, timeout: Duration) -> Result<http::Response<Body>, Error> {
    const BODY_BYTES_MAX: usize = 1 << 20;
    let (head, body) = request.into_parts();
    let is_head = head.method == http::Method::HEAD;
    let body = match tokio::time::timeout(timeout, body.read(BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(Error::new(Kind::UpstreamProtocol, format!("echo: the request body: {error:?}"))),
        Err(_) => return Err(Error::new(Kind::UpstreamTimeout, "echo: the request body did not arrive")),
    };
    let headers: Vec<[String; 2]> = head
        .headers
        .iter()
        .map(|(name, value)| [name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    let text = serde_json::json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let mut text = serde_json::to_vec_pretty(&text).unwrap_or_default();
    text.push(b'\n');
    let length = text.len();
    let body = if is_head { Body::empty() } else { Body::full(Bytes::from(text)) };
    let mut response = http::Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if response.body().size_hint().exact() != Some(length as u64) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}
