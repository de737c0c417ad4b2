//! `upstreams:` of gateway.yaml: the types and how they are read.
//!
//! Every duration and number has a default with which an upstream of one plain endpoint behaves sensibly. Must not know: sockets, how requests are balanced.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::read::{Section, duration_within};
use super::sections::{HOUR, MILLISECOND, token};
use super::tls::{self, UpstreamTls};
use super::tree::{Node, Value};

/// More endpoints than one upstream can have: choosing looks at each of them.
const ENDPOINTS_MAX: usize = 256;
const WEIGHT_MAX: u32 = 1000;

/// A group of servers that a route sends requests to.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Where it is.
    pub target: UpstreamTarget,
    /// Where the endpoints are `https://`.
    pub tls: Option<UpstreamTls>,
    /// What is spoken to it. Default HTTP/1.1.
    pub protocol: Protocol,
    /// Who takes the next request. Default in turn.
    pub balance: Balance,
    /// To connect, to all addresses of an endpoint together. Default 1 s.
    pub connect_timeout: Duration,
    /// From the request's start to the response's head, retries included. Default 15 s. More than the gateway's filter budget.
    pub timeout: Duration,
    /// While a response's body is waited for without a byte. Default 60 s; none switches it off (`off`).
    pub body_idle_timeout: Option<Duration>,
    /// From the request's start to the end of the response's body. Default none. Not below `timeout`.
    pub total_timeout: Option<Duration>,
    /// Idle connections to one endpoint kept by each thread. Default 64; 0 to 10,000.
    pub idle_connections: usize,
    /// How long an idle connection is kept. Default 30 s.
    pub idle_timeout: Duration,
    /// How often a host name is looked up again; a shorter time to live of the answer counts. Default 30 s.
    pub resolve_interval: Duration,
    /// What is tried again.
    pub retries: Retries,
    /// Asking the endpoints whether they are well. Default: not.
    pub health_check: Option<HealthCheck>,
    /// Leaving out endpoints that fail. Default: five failures in a row; none switches it off (`outlier: off`).
    pub outlier: Option<OutlierDetection>,
    /// Bounds for each endpoint, over all threads.
    pub limits: UpstreamLimits,
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq)]
pub enum UpstreamTarget {
    /// `endpoints:`, 1 to 256, no two the same.
    Endpoints(Vec<EndpointConfig>),
    /// `builtin: echo`: answers with what it received as JSON, without a network. For trying things out.
    Echo,
}

/// An endpoint and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Where it is.
    pub address: EndpointAddress,
    /// Its share of the requests in proportion to the others'. Default 1; 0 (no requests) to 1000.
    pub weight: u32,
}

/// One server of an upstream: `http://host:port` or `https://host:port`. A host name is resolved while the gateway runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// Default 80, for `https://` 443.
    pub port: u16,
    /// `https://`; the same for all endpoints of an upstream.
    pub tls: bool,
}

impl std::fmt::Display for EndpointAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    H2,
}

/// Who takes the next request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// `round_robin`: in turn, by weight.
    RoundRobin,
    /// `least_requests`: of two endpoints picked by weight the one with fewer requests in flight.
    LeastRequests,
    /// `{hash: …}`: the same key to the same endpoint for as long as it can be used; requests without the key are taken in turn.
    Hash(HashKey),
}

/// What of a request decides its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// `{header: NAME}`, lower case.
    Header(String),
    /// `{cookie: NAME}`.
    Cookie(String),
    /// `client_ip`.
    ClientIp,
    /// `path`, without the query.
    Path,
}

/// What is tried again, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Tries after the first. Default 1; 0 to 10.
    pub attempts: u32,
    /// For one try to the response's head. Default none: `timeout` for all. Below `timeout`.
    pub per_try_timeout: Option<Duration>,
    /// No connection, or nothing was sent. Default true.
    pub on_connect: bool,
    /// The connection ended before a response's head. Default true.
    pub on_reset: bool,
    /// `per_try_timeout` was over. Default false.
    pub on_timeout: bool,
    /// Responses with these statuses. Default none.
    pub on_status: Vec<u16>,
    /// Retries at most, in percent of the requests of the last ten seconds (of each thread). Default 20; 0 to 100. Ten retries in ten seconds are always granted.
    pub budget_percent: u32,
    /// The first retry waits for up to this, each further one for up to twice the one before. Default 25 ms.
    pub backoff: Duration,
    /// Never longer. Default 250 ms.
    pub backoff_max: Duration,
}

/// Asking an endpoint whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The target of the GET, with a query if need be.
    pub path: String,
    /// Between two checks. Default 10 s.
    pub interval: Duration,
    /// For one check. Default 1 s. At most `interval`.
    pub timeout: Duration,
    /// Good answers in a row after which an unhealthy endpoint is healthy. Default 2; 1 to 100.
    pub healthy: u32,
    /// Bad answers in a row after which a healthy endpoint is unhealthy. Default 3; 1 to 100.
    pub unhealthy: u32,
    /// Statuses of good answers, both included. Default 200 to 399.
    pub status: Vec<(u16, u16)>,
    /// The `host` field. Default the endpoint's.
    pub host: Option<String>,
}

/// Leaving out an endpoint that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Failures in a row: no connection, broken off, too slow, 502, 503, 504. Default 5; 1 to 1000.
    pub failures: u32,
    /// For how long the first time; twice as long each further time, at most sixteen times. Default 10 s.
    pub eject: Duration,
    /// Of an upstream's endpoints, at most this share is left out at once, rounded down. Default 50; 0 to 100.
    pub max_ejected_percent: u32,
}

/// Bounds for each endpoint, over all threads; above them 503 with Retry-After.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Connections. Default none; 1 to 1,000,000.
    pub connections: Option<usize>,
    /// Requests whose response has not ended. Default none; 1 to 1,000,000.
    pub in_flight: Option<usize>,
    /// Requests that wait for one of the `connections`. Default 1024; 0 to 1,000,000.
    pub pending: usize,
}

/// Reads one entry of `upstreams:`.
pub(super) fn upstream(section: Section, base: &Path) -> Upstream {
    let timeout = duration(&section, "timeout").unwrap_or(Duration::from_secs(15));
    let retries = retries(section.section("retries"));
    let per_try = retries.per_try_timeout.unwrap_or(timeout);
    let target = target(&section);
    let tls = match &target {
        UpstreamTarget::Endpoints(members) => tls::upstream(&section, base, members.iter().map(|member| &member.address)),
        UpstreamTarget::Echo => tls::upstream(&section, base, std::iter::empty()),
    };
    let upstream = Upstream {
        target,
        tls,
        protocol: protocol(&section),
        balance: balance(&section),
        // A default is never the reason for a refusal: it gives way to what was written.
        connect_timeout: duration(&section, "connect_timeout").unwrap_or(per_try.min(Duration::from_secs(1))),
        timeout,
        body_idle_timeout: or_off(&section, "body_idle_timeout").unwrap_or(Some(Duration::from_secs(60))),
        total_timeout: or_off(&section, "total_timeout").unwrap_or(None),
        idle_connections: section.number("idle_connections", 0, 10_000).unwrap_or(64),
        idle_timeout: duration(&section, "idle_timeout").unwrap_or(Duration::from_secs(30)),
        resolve_interval: section
            .duration("resolve_interval", Duration::from_secs(1), HOUR)
            .unwrap_or(Duration::from_secs(30)),
        retries,
        health_check: section.get("health_check").is_some().then(|| health_check(section.section("health_check"))),
        outlier: outlier(&section),
        limits: limits(section.section("limits")),
    };
    section.finish();
    upstream
}

fn duration(section: &Section, key: &'static str) -> Option<Duration> {
    section.duration(key, MILLISECOND, HOUR)
}

/// A duration, or `off`; the outer none where nothing was written.
fn or_off(section: &Section, key: &'static str) -> Option<Option<Duration>> {
    section.scalar(key, |text| match text {
        "off" => Ok(None),
        _ => duration_within(text, MILLISECOND, HOUR).map(Some),
    })
}

fn is_off(node: Option<&Node>) -> bool {
    matches!(node.map(|node| &node.value), Some(Value::Scalar { text, .. }) if text == "off")
}

fn target(section: &Section) -> UpstreamTarget {
    let builtin =
        section.scalar("builtin", |text| if text == "echo" { Ok(()) } else { Err("the only builtin is echo".into()) });
    let (named, built) = (section.get("endpoints").is_some(), section.get("builtin").is_some());
    if named == built {
        section.error(
            section.line,
            "endpoints",
            "give either endpoints, such as [\"http://127.0.0.1:9000\"], or builtin: echo",
        );
    }
    if builtin.is_some() {
        return UpstreamTarget::Echo;
    }
    let node = section.get("endpoints");
    let line = node.map_or(section.line, |node| node.line);
    let nodes = match node.map(|node| (node, &node.value)) {
        None => &[],
        Some((_, Value::List(items))) => items.as_slice(),
        Some((node, _)) => std::slice::from_ref(node),
    };
    if named && nodes.is_empty() {
        section.error(line, "endpoints", "is empty: an upstream has at least one endpoint");
    }
    if nodes.len() > ENDPOINTS_MAX {
        section.error(line, "endpoints", format!("{} endpoints: at most {ENDPOINTS_MAX} are read", nodes.len()));
    }
    let mut members: Vec<EndpointConfig> = vec![];
    for (at, node) in nodes.iter().take(ENDPOINTS_MAX).enumerate() {
        let Some(found) = member(section, at, node) else { continue };
        if members.iter().any(|other| other.address == found.address) {
            section.error(
                node.line,
                &format!("endpoints[{at}]"),
                format!("{}: is there twice: give it a weight instead", found.address),
            );
        }
        members.push(found);
    }
    UpstreamTarget::Endpoints(members)
}

/// `http://a:1`, or `{url: http://a:1, weight: 3}`.
fn member(upstream: &Section, at: usize, node: &Node) -> Option<EndpointConfig> {
    let path = format!("endpoints[{at}]");
    if let Value::Scalar { text, .. } = &node.value {
        return match endpoint(text) {
            Ok(endpoint) => Some(EndpointConfig { address: endpoint, weight: 1 }),
            Err(why) => {
                upstream.error(node.line, &path, format!("{}: {why}", node.kind()));
                None
            }
        };
    }
    let section = Section::new(Some(node), upstream.at(&path), upstream.errors);
    let url = section.scalar("url", endpoint);
    if section.get("url").is_none() {
        section.error(section.line, "url", "is missing: write http://host:port");
    }
    let weight = section.number("weight", 0, WEIGHT_MAX).unwrap_or(1);
    section.finish();
    Some(EndpointConfig { address: url?, weight })
}

fn endpoint(text: &str) -> Result<EndpointAddress, String> {
    let wrong = || "write http://host:port or https://host:port".to_owned();
    let (tls, authority) = match text.strip_prefix("https://") {
        Some(authority) => (true, authority),
        None => (false, text.strip_prefix("http://").ok_or_else(wrong)?),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
    if parsed.host().is_empty() || authority.contains('@') || authority.contains('/') {
        return Err(wrong());
    }
    if authority.len() > parsed.host().len() && parsed.port_u16().is_none() {
        return Err("the port is not between 0 and 65535".into());
    }
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if tls && ServerName::try_from(host.as_str()).is_err() {
        return Err("the host is no name that a certificate has".into());
    }
    Ok(EndpointAddress { host, port: parsed.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
}

fn protocol(section: &Section) -> Protocol {
    let read = section.scalar("protocol", |text| match text {
        "http1" => Ok(Protocol::Http1),
        "h2" => Ok(Protocol::H2),
        _ => Err("write http1 or h2".into()),
    });
    read.unwrap_or(Protocol::Http1)
}

/// `round_robin`, `least_requests`, or `{hash: {header: x-user}}`.
fn balance(section: &Section) -> Balance {
    let Some(node) = section.get("balance") else { return Balance::RoundRobin };
    if matches!(node.value, Value::Map(_)) {
        let own = section.section("balance");
        let key = hash_key(&own);
        own.finish();
        return key.map_or(Balance::RoundRobin, Balance::Hash);
    }
    let read = section.scalar("balance", |text| match text {
        "round_robin" => Ok(Balance::RoundRobin),
        "least_requests" => Ok(Balance::LeastRequests),
        _ => Err("write round_robin, least_requests or {hash: …}".into()),
    });
    read.unwrap_or(Balance::RoundRobin)
}

fn hash_key(balance: &Section) -> Option<HashKey> {
    let advice = "write client_ip, path, {header: NAME} or {cookie: NAME}";
    let Some(node) = balance.get("hash") else {
        balance.error(balance.line, "hash", format!("is missing: {advice}"));
        return None;
    };
    if !matches!(node.value, Value::Map(_)) {
        return balance.scalar("hash", |text| match text {
            "client_ip" => Ok(HashKey::ClientIp),
            "path" => Ok(HashKey::Path),
            _ => Err(advice.into()),
        });
    }
    let own = balance.section("hash");
    let header = own.scalar("header", |text| token(text).map(|name| HashKey::Header(name.to_ascii_lowercase())));
    let cookie = own.scalar("cookie", |text| token(text).map(HashKey::Cookie));
    if own.get("header").is_some() == own.get("cookie").is_some() {
        own.error(own.line, "header", "give either header or cookie");
    }
    own.finish();
    header.or(cookie)
}

fn retries(section: Section) -> Retries {
    let mut retries = Retries {
        attempts: section.number("attempts", 0, 10).unwrap_or(1),
        per_try_timeout: duration(&section, "per_try_timeout"),
        on_connect: true,
        on_reset: true,
        on_timeout: false,
        on_status: vec![],
        budget_percent: section.number("budget_percent", 0, 100).unwrap_or(20),
        backoff: duration(&section, "backoff").unwrap_or(Duration::from_millis(25)),
        backoff_max: Duration::ZERO,
    };
    retries.backoff_max = duration(&section, "backoff_max").unwrap_or(retries.backoff.max(Duration::from_millis(250)));
    if section.get("on").is_some() {
        let on = section.list("on", |text| match text {
            "connect" | "reset" | "timeout" => Ok((text.to_owned(), 0)),
            _ => match text.parse::<u16>() {
                Ok(status @ 400..=599) => Ok((String::new(), status)),
                _ => Err("write connect, reset, timeout or a status between 400 and 599".into()),
            },
        });
        let has = |word: &str| on.iter().any(|(text, _)| text == word);
        (retries.on_connect, retries.on_reset, retries.on_timeout) = (has("connect"), has("reset"), has("timeout"));
        retries.on_status = on.iter().map(|(_, status)| *status).filter(|status| *status != 0).collect();
    }
    section.finish();
    retries
}

fn health_check(section: Section) -> HealthCheck {
    let path = section.scalar("path", |text| {
        let visible = text.bytes().all(|byte| byte > b' ' && byte < 0x7f && byte != b'#');
        if text.starts_with('/') && visible {
            Ok(text.to_owned())
        } else {
            Err("begins with / and has only visible ASCII".into())
        }
    });
    if section.get("path").is_none() {
        section.error(section.line, "path", "is missing: write what to ask for, such as /healthz");
    }
    let mut status = section.list("status", status_range);
    if status.is_empty() {
        status.push((200, 399));
    }
    let interval = section.duration("interval", Duration::from_millis(10), HOUR).unwrap_or(Duration::from_secs(10));
    let check = HealthCheck {
        path: path.unwrap_or_else(|| "/".into()),
        interval,
        timeout: duration(&section, "timeout").unwrap_or(interval.min(Duration::from_secs(1))),
        healthy: section.number("healthy", 1, 100).unwrap_or(2),
        unhealthy: section.number("unhealthy", 1, 100).unwrap_or(3),
        status,
        host: section.scalar("host", |text| match text.parse::<http::uri::Authority>() {
            Ok(host) if !text.contains('@') => Ok(host.as_str().to_owned()),
            _ => Err("write a host, with its port if need be".into()),
        }),
    };
    section.finish();
    check
}

/// `200`, or `200-399`.
fn status_range(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if 100 <= from && from <= to && to <= 599 => Ok((from, to)),
        _ => Err("write a status such as 200, or a range such as 200-399".into()),
    }
}

fn outlier(section: &Section) -> Option<OutlierDetection> {
    if is_off(section.get("outlier")) {
        return None;
    }
    let own = section.section("outlier");
    let outlier = OutlierDetection {
        failures: own.number("failures", 1, 1000).unwrap_or(5),
        eject: duration(&own, "eject").unwrap_or(Duration::from_secs(10)),
        max_ejected_percent: own.number("max_ejected_percent", 0, 100).unwrap_or(50),
    };
    own.finish();
    Some(outlier)
}

fn limits(section: Section) -> UpstreamLimits {
    let limits = UpstreamLimits {
        connections: section.number("connections", 1, 1_000_000),
        in_flight: section.number("in_flight", 1, 1_000_000),
        pending: section.number("pending", 0, 1_000_000).unwrap_or(1024),
    };
    section.finish();
    limits
}
