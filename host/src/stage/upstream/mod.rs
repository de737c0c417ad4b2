//! Sends a request to an upstream: choose an endpoint → attempt.
//!
//! This file is that sentence; `balance.rs` chooses, `pool.rs` has this thread's connections, `echo.rs` is the upstream without a network. Must not know: routes, filters, clients.

mod balance;
mod echo;
mod http1;
mod pool;

use std::time::Duration;

use crate::body::{Body, Interim};
use crate::config::{Endpoint, Target, Upstream};
use crate::error::{Error, Kind};
use crate::telemetry::Metrics;
use balance::Turns;
use pool::Pool;

/// This thread's way to all upstreams.
pub struct Pools {
    pool: Pool,
    turns: Turns,
}

impl Pools {
    /// No connections yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { pool: Pool::new(metrics), turns: Turns::default() }
    }

    /// Sends `request` and gives the response's head; its body streams. `name` is the upstream's, for messages.
    pub async fn send(
        &self,
        name: &str,
        upstream: &Upstream,
        request: http::Request<Body>,
        interim: Option<&Interim>,
    ) -> Result<http::Response<Body>, Error> {
        let endpoints = match &upstream.target {
            Target::Echo => return echo::answer(request, upstream.timeout).await,
            Target::Endpoints(endpoints) => endpoints,
        };
        let endpoint = &endpoints[self.turns.next(name, endpoints.len())];
        match tokio::time::timeout(upstream.timeout, self.pool.attempt(name, upstream, endpoint, request, interim))
            .await
        {
            Ok(result) => result.map_err(|attempt| attempt.error),
            Err(_) => Err(Error::new(
                Kind::UpstreamTimeout,
                format!(
                    "upstream {name}: {}:{} sent no response within {:?}",
                    endpoint.host, endpoint.port, upstream.timeout
                ),
            )),
        }
    }

    /// Drops connections that were idle for too long; called from time to time.
    pub fn sweep(&self, keep: impl Fn(&Endpoint) -> Option<Duration>) {
        self.pool.sweep(keep);
    }
}
