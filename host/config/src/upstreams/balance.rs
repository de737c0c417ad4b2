//! `balance:` of an upstream: how requests are distributed over its endpoints.
//!
//! This module does not know: how an endpoint is chosen.

use crate::values::token;
use crate::yaml::{Section, Value};

/// How requests are distributed over the endpoints of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// `round_robin`: in turn, by weight.
    RoundRobin,
    /// `least_requests`: picks two endpoints by weight and takes the one with fewer requests in
    /// flight.
    LeastRequests,
    /// `{hash: …}`: sends the same key to the same endpoint while that endpoint is usable.
    /// Requests without the key are distributed in turn.
    Hash(HashKey),
}

/// The part of a request that determines its endpoint.
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

impl Balance {
    pub(crate) fn read(upstream: &Section) -> Self {
        let Some(node) = upstream.get("balance") else { return Self::RoundRobin };
        if matches!(node.value, Value::Map(_)) {
            return upstream.nested("balance", HashKey::read).map_or(Self::RoundRobin, Self::Hash);
        }
        let policies = [("round_robin", Self::RoundRobin), ("least_requests", Self::LeastRequests)];
        let advice = match &node.value {
            Value::Scalar { text, .. } if matches!(text.as_str(), "least_conn" | "leastconn" | "random") => {
                "write least_requests, which picks two endpoints and takes the one with fewer requests"
            }
            Value::Scalar { text, .. } if matches!(text.as_str(), "ip_hash" | "source" | "sticky") => {
                "write {hash: client_ip}, or {hash: {cookie: NAME}}"
            }
            _ => "write round_robin, least_requests or {hash: …}",
        };
        let policy = upstream.choice("balance", &policies, advice);
        policy.unwrap_or(Self::RoundRobin)
    }
}

impl HashKey {
    fn read(balance: &Section) -> Option<Self> {
        const ADVICE: &str = "write client_ip, path, {header: NAME} or {cookie: NAME}";
        balance.require("hash", ADVICE);
        if !matches!(balance.get("hash")?.value, Value::Map(_)) {
            return balance.choice("hash", &[("client_ip", Self::ClientIp), ("path", Self::Path)], ADVICE);
        }
        balance.nested("hash", |section| {
            let header =
                section.scalar("header", |text| token(text).map(|name| Self::Header(name.to_ascii_lowercase())));
            let cookie = section.scalar("cookie", |text| token(text).map(Self::Cookie));
            if section.has("header") == section.has("cookie") {
                section.error(section.line(), "header", "give either header or cookie");
            }
            header.or(cookie)
        })
    }
}
