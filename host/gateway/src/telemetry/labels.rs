//! The labels of metrics.
//!
//! This module does not know: which metrics there are.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Labels of an exchange.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's name, `-` if none matched.
    pub route: Arc<str>,
    /// A method that RFC 9110 or 5789 defines, else `other`.
    pub method: &'static str,
    /// The status that the client got; of one that is not registered, the first of its class.
    pub status: u16,
}

/// Labels of a route.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RouteLabels {
    /// The route's name, `-` if none matched.
    pub route: Arc<str>,
}

/// Labels of a route's exchanges that ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RouteClassLabels {
    /// The route's name, `-` if none matched.
    pub route: Arc<str>,
    /// One of [`STATUS_CLASSES`].
    pub class: &'static str,
}

/// Labels of a listener's exchanges that ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ListenerRequestLabels {
    /// The listener's name.
    pub listener: Arc<str>,
    /// One of [`STATUS_CLASSES`].
    pub class: &'static str,
}

/// Classes of statuses. The last one is for clients that left before the response.
pub const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// The index of a status in [`STATUS_CLASSES`].
pub(super) fn status_class(status: Option<u16>) -> usize {
    let class = status.map_or(0, |status| usize::from(status / 100));
    if (1..=5).contains(&class) { class - 1 } else { STATUS_CLASSES.len() - 1 }
}

/// Labels of one version of a filter.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FilterVersionLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// The manifest's version, `-` without a manifest.
    pub version: Arc<str>,
}

/// Labels of the instances that serve a filter's calls.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct InstanceLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// The manifest's version, `-` without a manifest.
    pub version: Arc<str>,
    /// `new`, or `idle` for one that was made ahead or kept.
    pub instance: &'static str,
}

/// Labels of a route's copies of requests.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct MirrorLabels {
    /// The route's name.
    pub route: Arc<str>,
    /// `answered` or `failed`, or why no copy was sent: `body-too-large` or `busy`.
    pub result: &'static str,
}

/// All values of [`MirrorLabels::result`].
pub(super) const MIRROR_RESULTS: [&str; 4] = ["answered", "failed", "body-too-large", "busy"];

/// Labels of a filter's calls.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CallLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// The manifest's version, `-` without a manifest.
    pub version: Arc<str>,
    /// `request` or `response`.
    pub phase: &'static str,
}

/// Labels of a filter's failed calls.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FailureLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// The manifest's version, `-` without a manifest.
    pub version: Arc<str>,
    /// A label of `error::FilterFailure`.
    pub kind: &'static str,
}

/// Labels of the calls that a filter makes to a capability of the gateway.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CapabilityLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// The manifest's version, `-` without a manifest.
    pub version: Arc<str>,
    /// One of [`CAPABILITIES`].
    pub capability: &'static str,
    /// `ok` or `error`.
    pub result: &'static str,
}

/// The capabilities whose calls are counted, in the order of `CapabilityCalls`.
pub(super) const CAPABILITIES: [&str; 3] = ["keyvalue", "limiter", "http"];

/// The trace that an exemplar names.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TraceLabels {
    /// The trace.
    pub trace_id: TraceId,
}

/// Is written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl EncodeLabelValue for TraceId {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        write!(encoder, "{:032x}", self.0)
    }
}

/// Labels of exports over OTLP.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OtlpLabels {
    /// `ok` or `failed`.
    pub result: &'static str,
}

/// Labels of a filter file that the gateway refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LoadFailureLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// The reason, from a fixed list.
    pub reason: &'static str,
}

/// Labels of a listener's certificate.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CertificateLabels {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The certificate's first host, or its subject.
    pub name: Arc<str>,
}

/// Labels of an upstream's certificate: a trusted authority, or the gateway's client certificate.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct UpstreamCertificateLabels {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The certificate's first host, or its subject.
    pub name: Arc<str>,
}

/// Labels of a listener's certificate file that the gateway refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CertificateFailureLabels {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The reason, from a fixed list.
    pub reason: &'static str,
}

/// Labels of an upstream's certificate file that the gateway refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct UpstreamCertificateFailureLabels {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The reason, from a fixed list.
    pub reason: &'static str,
}

/// All values of [`HandshakeLabels::result`].
pub(super) const HANDSHAKE_RESULTS: [&str; 4] = ["full", "resumed", "failed", "timeout"];

/// Labels of a TLS handshake with a client.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct HandshakeLabels {
    /// The listener's name.
    pub listener: Arc<str>,
    /// `full`, `resumed`, `failed` or `timeout`.
    pub result: &'static str,
}

/// Labels of a reload.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `applied` or `refused`.
    pub result: &'static str,
}

/// All values of [`ReloadLabels::result`].
pub(super) const RELOAD_RESULTS: [&str; 2] = ["applied", "refused"];

/// Labels of a check of files.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FilesLabels {
    /// `certificates`, or `configuration`, which includes the filters.
    pub files: &'static str,
}

/// Labels of an endpoint.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EndpointLabels {
    /// The upstream's name in gateway.yaml.
    pub upstream: Arc<str>,
    /// Host and port.
    pub endpoint: Arc<str>,
}

/// Labels of attempts to send a request to an endpoint.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// The upstream's name in gateway.yaml.
    pub upstream: Arc<str>,
    /// Host and port.
    pub endpoint: Arc<str>,
    /// One of [`UPSTREAM_RESULTS`].
    pub result: &'static str,
}

/// How an attempt can end: with a status below 500, with a status of 500 or above, without a
/// connection, with a connection that closed before the response, with a timeout, with invalid
/// HTTP, unsent because of a limit, or with a client that left.
pub const UPSTREAM_RESULTS: [&str; 8] = ["ok", "5xx", "connect", "reset", "timeout", "protocol", "limit", "client"];

/// Labels of a shared store.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreLabels {
    /// The store's name in gateway.yaml.
    pub store: Arc<str>,
}

/// Labels of a store's operations.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreOperationLabels {
    /// The store's name in gateway.yaml.
    pub store: Arc<str>,
    /// A function of `keyvalue`, or `take`.
    pub operation: &'static str,
    /// `ok`, `error`, `timeout`, or `refused`: not sent, because the store was out of service.
    pub result: &'static str,
}

/// All values of [`StoreOperationLabels::operation`].
pub(super) const STORE_OPERATIONS: [&str; 7] =
    ["get", "get-many", "set", "delete", "increment", "compare-and-swap", "take"];

/// All values of [`StoreOperationLabels::result`].
pub(super) const STORE_RESULTS: [&str; 4] = ["ok", "error", "timeout", "refused"];

/// Labels of a route's rate limit.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RateLimitLabels {
    /// The route's name.
    pub route: Arc<str>,
    /// `allowed`, `limited`, or `unavailable`.
    pub result: &'static str,
}

/// All values of [`RateLimitLabels::result`].
pub(super) const RATE_LIMIT_RESULTS: [&str; 3] = ["allowed", "limited", "unavailable"];

/// Labels of retries.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RetryLabels {
    /// The upstream's name in gateway.yaml.
    pub upstream: Arc<str>,
    /// `ok` or `failed`, or `over_budget` for a retry that was not made.
    pub result: &'static str,
}

/// All values of [`RetryLabels::result`].
pub(super) const RETRY_RESULTS: [&str; 3] = ["ok", "failed", "over_budget"];

/// The name of a filter.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FilterNameLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
}

/// Labels of a loaded filter.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FilterLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// The manifest's version, `-` without a manifest.
    pub version: Arc<str>,
    /// The first 12 digits of the file's SHA-256.
    pub digest: Arc<str>,
}

/// Labels of decisions about releases.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReleaseDecisionLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// What was decided, from a fixed list.
    pub decision: &'static str,
}

/// What becomes of an exchange that a shadow chose.
pub(super) const SHADOW_RESULTS: [&str; 4] = ["equal", "different", "dropped", "skipped"];

/// Labels of the comparisons of a shadow.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ShadowLabels {
    /// The filter's name in gateway.yaml.
    pub filter: Arc<str>,
    /// What became of the exchange, from a fixed list.
    pub result: &'static str,
}

/// Labels of the gateway itself.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BuildLabels {
    pub(super) version: &'static str,
}

/// The label of a method: a registered method, or `other`, because clients can invent methods.
pub fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "TRACE" => "TRACE",
        "CONNECT" => "CONNECT",
        _ => "other",
    }
}

/// The label of a status: a registered status, or the first of its class, as which clients treat
/// any other (RFC 9110, section 15). Endpoints and filters can invent statuses.
pub(super) fn status_label(status: StatusCode) -> u16 {
    let is_registered = status.canonical_reason().is_some();
    if is_registered { status.as_u16() } else { status.as_u16().min(599) / 100 * 100 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invented_status_is_the_first_of_its_class() {
        let label = |status| StatusCode::from_u16(status).map(status_label).unwrap_or_default();
        let labels = [200, 299, 404, 499, 503, 599, 999].map(label);
        assert_eq!(labels, [200, 200, 404, 400, 503, 500, 500]);
    }

    #[test]
    fn an_invented_method_is_other() {
        assert_eq!(method_label(&http::Method::from_bytes(b"X123").unwrap_or_default()), "other");
    }
}
