//! The fields of a line of the access log as types, for answers of the admin listener.
//!
//! `line` writes the fields of the hot path without these types. This module does not know: when a
//! field is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An exchange. Times ending in `_us` are in microseconds.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(default)]
pub struct ShownExchange {
    /// When the request's head was complete (RFC 3339).
    time: String,
    /// The request id.
    id: String,
    /// The id of the exchange, if a trusted proxy gave another request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<String>,
    /// The trace, if traces are on.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// The span of the exchange in its trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    /// Whether the trace is exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    sampled: Option<bool>,
    /// The client's address, after trusted proxies.
    client: String,
    /// The address of the connection, if it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// The listener's name.
    listener: String,
    /// The version of HTTP.
    protocol: String,
    /// The version of TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<String>,
    /// The name that the client asked for in the TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<String>,
    /// The SHA-256 of the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_sha256: Option<String>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// The path without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The route's name.
    route: String,
    /// The status. Absent if there was no response.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The bytes of the request's body.
    received: u64,
    /// The bytes of the response's body.
    sent: u64,
    /// The duration to the end of the response's body.
    duration_us: u64,
    /// The time to the response's head.
    head_us: u64,
    /// The time in filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    filters_us: Option<u64>,
    /// The time to connect to the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_us: Option<u64>,
    /// The time to the head of the upstream's response.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_us: Option<u64>,
    /// The time from the response's head to its end.
    body_us: u64,
    /// The endpoint of the last try.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// Each try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tries: Vec<ShownTry>,
    /// Each call of a filter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<ShownCall>,
    /// The kind of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// The failure's detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Fields of the request, if `log.access.headers` or a reader of `/tap` asks for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// The failure in words, in lines of `/tap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
}

/// A try of an upstream.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(default)]
pub(super) struct ShownTry {
    /// The endpoint.
    endpoint: String,
    /// How it ended.
    result: String,
    /// The time to connect. Absent for a connection that was open.
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_us: Option<u64>,
    /// The time to the head of its response, or to its failure.
    us: u64,
}

/// A call of a filter.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(default)]
pub(super) struct ShownCall {
    /// The filter's name.
    filter: String,
    /// Its version.
    version: String,
    /// `request` or `response`.
    phase: String,
    /// How it ended.
    outcome: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Its duration.
    us: u64,
}
