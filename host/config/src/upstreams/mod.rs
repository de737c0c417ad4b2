//! `upstreams:`: groups of servers that routes send requests to.
//!
//! Every key has a default with which an upstream of one plain endpoint works well. This module
//! does not know: sockets, how requests are distributed.

pub(crate) mod balance;
pub(crate) mod component;
pub(crate) mod direct;
pub(crate) mod endpoints;
pub(crate) mod health;
pub(crate) mod http2;
pub(crate) mod retries;

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::tls::UpstreamTls;
use crate::values::{HOUR, MILLISECOND};
use crate::yaml::Section;
use balance::Balance;
use endpoints::{AddressKind, UpstreamTarget};
use health::{HealthCheck, OutlierDetection};
use http2::Http2Settings;
use retries::Retries;

/// The time that a component has for a whole response by default.
const COMPONENT_TIME: Duration = Duration::from_secs(60);

/// A group of servers that routes send requests to. Durations are 1 ms to 1 h unless they say
/// otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// The servers.
    pub target: UpstreamTarget,
    /// Present if the endpoints are `https://`.
    pub tls: Option<UpstreamTls>,
    /// Default HTTP/1.1.
    pub protocol: Protocol,
    /// HTTP/2 connections. Only used with [`Protocol::H2`].
    pub http2: Http2Settings,
    /// How requests are distributed. Default round robin.
    pub balance: Balance,
    /// To connect to an endpoint, over all its addresses. Default 1 s, or less if `timeout` is
    /// shorter.
    pub connect_timeout: Duration,
    /// From the start of the request to the head of the response, retries included. Default 15 s.
    /// It is above `timeouts.filters`.
    pub timeout: Duration,
    /// How long the gateway waits for the next byte of a response's body. Default 60 s; `None`
    /// (`off`) disables it.
    pub body_idle_timeout: Option<Duration>,
    /// From the start of the request to the end of the response's body. Default none, but 60 s for
    /// a component. It is not below `timeout`.
    pub total_timeout: Option<Duration>,
    /// The size of a response's head. Default 64 KiB; 8 KiB to 1 MiB.
    pub response_head_bytes: usize,
    /// Idle connections that each thread keeps to one endpoint. Default 64; 0 to 10,000.
    pub idle_connections: usize,
    /// How long an idle connection is kept. Default 30 s.
    pub idle_timeout: Duration,
    /// How often host names are resolved again, unless the DNS answer has a shorter time to live.
    /// Default 30 s; at least 1 s.
    pub resolve_interval: Duration,
    /// Which failures are retried.
    pub retries: Retries,
    /// Active health checks. Default none.
    pub health_check: Option<HealthCheck>,
    /// Ejects endpoints that fail. Default: after five consecutive failures; `None`
    /// (`outlier: off`) disables it.
    pub outlier: Option<OutlierDetection>,
    /// Bounds on each endpoint, over all threads.
    pub limits: UpstreamLimits,
    /// For direct calls of filters, the networks that the gateway connects to beside public
    /// addresses. `None` for every upstream of the file: its endpoints may be anywhere.
    pub public_or: Option<Vec<IpNet>>,
}

/// The protocol towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    H2,
}

/// Bounds on each endpoint, over all threads. The gateway answers 503 with Retry-After above them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Connections. Default none; 1 to 1,000,000.
    pub connections: Option<usize>,
    /// Requests whose response has not ended. Default none; 1 to 1,000,000.
    pub in_flight: Option<usize>,
    /// Requests that wait for one of the `connections`. Default 1024; 0 to 1,000,000.
    pub pending: usize,
}

impl Upstream {
    /// Reads one entry of `upstreams:`. The defaults of timeouts adapt to the timeouts in the
    /// file, so that a default never causes an error.
    pub(crate) fn read(section: &Section, base: &Path) -> Self {
        Self::with_target(section, base, UpstreamTarget::read(section, base))
    }

    /// Reads all keys but those of the servers.
    pub(crate) fn with_target(section: &Section, base: &Path, target: UpstreamTarget) -> Self {
        let duration = |key| section.duration(key, MILLISECOND, HOUR);
        let duration_or_off = |key| section.duration_or_off(key, MILLISECOND, HOUR);
        let timeout = duration("timeout").unwrap_or(Duration::from_secs(15));
        let retries = section.nested("retries", Retries::read);
        let per_try_timeout = retries.per_try_timeout.unwrap_or(timeout);
        let resolve_interval = section.duration("resolve_interval", Duration::from_secs(1), HOUR);
        let outlier =
            if section.is_off("outlier") { None } else { Some(section.nested("outlier", OutlierDetection::read)) };
        let default_total = matches!(target, UpstreamTarget::Component(_)).then(|| COMPONENT_TIME.max(timeout));
        let upstream = Self {
            tls: read_tls(section, base, &target),
            target,
            protocol: Protocol::read(section),
            http2: section.nested("http2", Http2Settings::read),
            balance: Balance::read(section),
            connect_timeout: duration("connect_timeout").unwrap_or(per_try_timeout.min(Duration::from_secs(1))),
            timeout,
            body_idle_timeout: duration_or_off("body_idle_timeout").unwrap_or(Some(Duration::from_secs(60))),
            total_timeout: duration_or_off("total_timeout").unwrap_or(default_total),
            response_head_bytes: section.size("response_head_bytes", 8 << 10, 1 << 20).unwrap_or(64 << 10),
            idle_connections: section.number("idle_connections", 0, 10_000).unwrap_or(64),
            idle_timeout: duration("idle_timeout").unwrap_or(Duration::from_secs(30)),
            resolve_interval: resolve_interval.unwrap_or(Duration::from_secs(30)),
            retries,
            health_check: section.optional("health_check", HealthCheck::read),
            outlier,
            limits: section.nested("limits", UpstreamLimits::read),
            public_or: None,
        };
        if upstream.protocol != Protocol::H2 && section.has("http2") {
            section.error_at(&["http2"], "has no effect without protocol: h2: add it, or remove http2");
        }
        if matches!(upstream.target, UpstreamTarget::Component(_)) && upstream.total_timeout.is_none() {
            section.error_at(&["total_timeout"], "a component must end some time: write a duration, at most 1h");
        }
        if upstream.target != UpstreamTarget::Echo {
            upstream.check_timeouts(section);
        }
        upstream
    }

    /// The timeout of a step is not above the timeout of the whole: connecting ≤ one try < all
    /// tries ≤ the exchange.
    fn check_timeouts(&self, section: &Section) {
        let error = |path: &[&str], value: Duration, rule: &str, limit: Duration| {
            section.error_at(path, format!("{value:?} is {rule} ({limit:?}): lower it, or raise the other"));
        };
        let Self { timeout, connect_timeout, retries, .. } = self;
        if connect_timeout > timeout {
            error(&["connect_timeout"], *connect_timeout, "above the upstream's timeout", *timeout);
        }
        if let Some(per_try) = retries.per_try_timeout {
            if per_try >= *timeout {
                error(&["retries", "per_try_timeout"], per_try, "not below the upstream's timeout", *timeout);
            }
            if *connect_timeout > per_try {
                error(&["connect_timeout"], *connect_timeout, "above retries.per_try_timeout", per_try);
            }
        }
        if let Some(total) = self.total_timeout
            && *timeout > total
        {
            error(&["timeout"], *timeout, "above total_timeout", total);
        }
        if retries.backoff > retries.backoff_max {
            error(&["retries", "backoff"], retries.backoff, "above backoff_max", retries.backoff_max);
        }
        if let Some(check) = &self.health_check
            && check.timeout > check.interval
        {
            error(&["health_check", "timeout"], check.timeout, "above the interval", check.interval);
        }
    }
}

impl Protocol {
    fn read(upstream: &Section) -> Self {
        let protocols = [("http1", Self::Http1), ("h2", Self::H2)];
        let advice = "write http1 (HTTP/1.1), or h2 (HTTP/2, also for gRPC)";
        upstream.choice("protocol", &protocols, advice).unwrap_or(Self::Http1)
    }
}

impl UpstreamLimits {
    fn read(section: &Section) -> Self {
        Self {
            connections: section.number("connections", 1, 1_000_000),
            in_flight: section.number("in_flight", 1, 1_000_000),
            pending: section.number("pending", 0, 1_000_000).unwrap_or(1024),
        }
    }
}

/// `tls:`, which is only allowed if the endpoints are `https://`.
fn read_tls(upstream: &Section, base: &Path, target: &UpstreamTarget) -> Option<UpstreamTls> {
    let (secure, plain): (Vec<_>, Vec<_>) = target.endpoints().iter().partition(|endpoint| endpoint.address.tls);
    let is_https = !secure.is_empty();
    if is_https && !plain.is_empty() {
        upstream.error_at(&["endpoints"], "some endpoints are https:// and some http://: make two upstreams");
    }
    if !is_https && upstream.has("tls") {
        upstream.error_at(&["tls"], "has no effect, because the endpoints are not https://: remove it");
    }
    let tls = upstream.nested("tls", |section| UpstreamTls::read(section, base));
    let has_service = secure.iter().any(|endpoint| endpoint.address.kind == AddressKind::Srv);
    if has_service && tls.server_name.is_none() {
        let message =
            "is required for srv+https://: anybody who can forge a DNS answer could choose the name otherwise";
        upstream.error_at(&["tls", "server_name"], message);
    }
    is_https.then_some(tls)
}
