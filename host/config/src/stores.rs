//! `stores:`: servers that keep state for all gateways that share them.
//!
//! This module does not know: how a store is reached, which filters and routes use it.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::uri::Authority;

use crate::telemetry::Secret;
use crate::tls::UpstreamTls;
use crate::values::MILLISECOND;
use crate::yaml::Section;

const TIMEOUT_MAX: Duration = Duration::from_millis(50);
const ENDPOINTS_MAX: usize = 16;
const DATABASE_MAX: u32 = 1023;

/// A store that several gateways can share.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedStore {
    /// The server.
    pub redis: Redis,
    /// For one operation, including the wait for a connection. Default and maximum 50 ms; at least
    /// 1 ms.
    pub timeout: Duration,
    /// What an operation does if the store cannot be reached. Default error.
    pub on_failure: OnStoreFailure,
}

/// What an operation does if the store cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// `error`: it fails. A filter gets the error; a route's `rate_limit` answers with 503.
    Error,
    /// `local`: this gateway's memory takes the place of the store until it is back.
    Local,
    /// `open`: limits allow everything, and the key-value store behaves as one that is empty.
    Open,
}

impl OnStoreFailure {
    /// The word in gateway.yaml.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Local => "local",
            Self::Open => "open",
        }
    }
}

/// A Redis or Valkey server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Redis {
    /// One address, those of the Sentinels, or those of some nodes of a cluster. 1 to 16.
    pub addresses: Vec<RedisAddress>,
    /// The name of the master that the Sentinels know. `None` if the address is that of the server.
    pub master: Option<String>,
    /// Whether the addresses are nodes of a Redis Cluster.
    pub is_cluster: bool,
    /// The ACL user. Default: the server's `default` user.
    pub username: Option<String>,
    /// The password of the user. It is not sent to Sentinels.
    pub password: Option<Secret>,
    /// Default 0; at most 1023.
    pub database: u32,
    /// Set if the addresses are `rediss://`.
    pub tls: Option<UpstreamTls>,
}

/// A host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// A name in lower case or an IP address; IPv6 without brackets.
    pub host: String,
    /// Default 6379, for Sentinels 26379.
    pub port: u16,
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

impl SharedStore {
    pub(crate) fn read(section: &Section, base: &Path) -> Self {
        section.require("redis", "write {url: redis://host:6379}");
        let choices =
            [("error", OnStoreFailure::Error), ("local", OnStoreFailure::Local), ("open", OnStoreFailure::Open)];
        let on_failure = section.choice("on_failure", &choices, "write error, local or open");
        Self {
            redis: section.optional("redis", |redis| Redis::read(redis, base)).unwrap_or_default(),
            timeout: section.duration("timeout", MILLISECOND, TIMEOUT_MAX).unwrap_or(TIMEOUT_MAX),
            on_failure: on_failure.unwrap_or(OnStoreFailure::Error),
        }
    }
}

impl Redis {
    fn read(section: &Section, base: &Path) -> Self {
        let url = section.scalar("url", |text| parse_url(text, 6379));
        let sentinel = section.optional("sentinel", |sentinel| {
            sentinel.require("master", "write the name that the Sentinels give to the master");
            (sentinel.string("master"), read_endpoints(sentinel, "endpoints", 26379))
        });
        let cluster = section.has("cluster").then(|| read_endpoints(section, "cluster", 6379));
        if ["url", "sentinel", "cluster"].into_iter().filter(|key| section.has(key)).count() != 1 {
            let message = "give one of url, such as redis://host:6379, sentinel: {master: NAME, endpoints: [redis://host:26379]}, and cluster: [redis://host:6379]";
            section.error(section.line(), "url", message);
        }
        let is_cluster = cluster.is_some();
        if is_cluster && section.has("database") {
            section.error_at(&["database"], "a cluster has only database 0: remove it");
        }
        let (master, found) = match cluster {
            Some(nodes) => (None, nodes),
            None => sentinel.unwrap_or((None, url.into_iter().collect())),
        };
        let is_tls = found.iter().any(|(_, tls)| *tls);
        if is_tls && found.iter().any(|(_, tls)| !tls) {
            let key = if is_cluster { "cluster" } else { "sentinel" };
            section.error_at(&[key], "some endpoints are rediss:// and some redis://: make them equal");
        }
        if !is_tls && section.has("tls") {
            section.error_at(&["tls"], "has no effect, because the address is not rediss://: remove it");
        }
        let tls = section.nested("tls", |tls| UpstreamTls::read(tls, base));
        Self {
            addresses: found.into_iter().map(|(address, _)| address).collect(),
            master,
            is_cluster,
            username: section.string("username"),
            password: section.string("password").map(Secret),
            database: section.number("database", 0, DATABASE_MAX).unwrap_or(0),
            tls: is_tls.then_some(tls),
        }
    }
}

fn read_endpoints(section: &Section, key: &'static str, port: u16) -> Vec<(RedisAddress, bool)> {
    let addresses = section.list(key, |text| parse_url(text, port));
    if addresses.is_empty() || addresses.len() > ENDPOINTS_MAX {
        section.error_at(&[key], format!("write 1 to {ENDPOINTS_MAX} addresses, such as [redis://host:{port}]"));
    }
    addresses
}

/// The address, and whether it uses TLS.
fn parse_url(text: &str, default_port: u16) -> Result<(RedisAddress, bool), String> {
    let invalid = || "write redis://host:port or rediss://host:port".to_owned();
    let (tls, rest) = match text.strip_prefix("rediss://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("redis://").ok_or_else(invalid)?),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("a URL in a file is easily shown: write username and password as keys of their own".into());
    }
    if rest.contains('/') {
        return Err("write the number of the database as `database`".into());
    }
    let authority: Authority = rest.parse().map_err(|_| invalid())?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let is_wrong = host.is_empty() || (rest.len() > authority.host().len() && authority.port_u16().is_none());
    if is_wrong || authority.port_u16() == Some(0) || (host.contains(':') && host.parse::<IpAddr>().is_err()) {
        return Err(invalid());
    }
    Ok((RedisAddress { host, port: authority.port_u16().unwrap_or(default_port) }, tls))
}
