//! The explanation of a failed exchange: what happened, to what, and what to do next.
//!
//! docs/reference/errors.md has the same advice as a table. This module does not know: who reads
//! it.

use super::record::ExchangeRecord;
use witgate_http::body::Direction;
use witgate_http::error::{FilterFailure, Kind};
use witgate_http::text::bounded;

/// What happened, in one or two sentences.
pub(super) fn explanation(record: &ExchangeRecord) -> String {
    let method = record.method.as_ref().map_or("A request", http::Method::as_str);
    let host = record.host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes())).unwrap_or_default();
    let path = record.target.as_ref().map_or("", |target| target.path());
    let answer = match record.status {
        Some(status) => format!("got status {}", status.as_u16()),
        None => "got no response".to_owned(),
    };
    bounded(format_args!("{method} {host}{path} {answer}: {}", cause(record)))
}

fn cause(record: &ExchangeRecord) -> String {
    if let Some(error) = &record.failure {
        return format!("{} ({}).", error.detail, error.kind.label());
    }
    if let Some((direction, kind)) = record.traffic.broken() {
        let body = if direction == Direction::Sent { "response" } else { "request" };
        return format!("the {body} body ended early ({}).", kind.label());
    }
    format!("{}.", record.status_origin().1)
}

/// What to do next.
pub(super) fn advice(record: &ExchangeRecord) -> &'static str {
    let kind = record.failure.as_ref().map(|error| error.kind).or(record.traffic.broken().map(|(_, kind)| kind));
    let Some(kind) = kind else { return origin_advice(record.status_origin().0) };
    match kind {
        Kind::BadRequest | Kind::MethodNotAllowed | Kind::ExpectationFailed | Kind::Version | Kind::NotImplemented => {
            "Correct the client."
        }
        Kind::UriTooLong | Kind::HeadTooLarge => {
            "Raise limits.request_head_bytes or limits.request_fields, or correct the client."
        }
        Kind::Misdirected => {
            "The TLS connection was made for another host: clients retry on a new connection. If they do not, check the names of the listener's certificates."
        }
        Kind::Loop => "Look for an upstream that points back at this gateway.",
        Kind::Forbidden => "Look at clients.allow and clients.deny of the route.",
        Kind::Unauthorized => "Make the client send credentials that basic_auth or jwt of the route accepts.",
        Kind::NoRoute => "Add a route, or correct its match.",
        Kind::BodyTooLarge => {
            "Raise limits.request_body_bytes, the route's limit, or body_bytes_max in the filter's filter.toml."
        }
        Kind::ClientTimeout | Kind::ClientGone => "Look at the client and the network before it.",
        Kind::RateLimited => "Make the client wait as long as Retry-After says, or raise the route's rate_limit.",
        Kind::StoreUnavailable => {
            "Look at the store of the route's rate_limit (witgate_store_up) and at its on_failure."
        }
        Kind::Saturated => "Find what is slow, then raise the limit that the text names.",
        Kind::Filter(failure) => filter_advice(failure),
        Kind::UpstreamConnect => "Check that the server runs and listens at this address.",
        Kind::UpstreamConnectTimeout | Kind::UpstreamUnroutable => {
            "Check the network and the firewalls before the endpoint."
        }
        Kind::UpstreamForbidden => "Define an upstream for the service, if the filter should call it.",
        Kind::UpstreamDns => "Check the name of the endpoint and the DNS server.",
        Kind::UpstreamCertificate => {
            "Check tls.ca and tls.server_name of the upstream, and the endpoint's certificate."
        }
        Kind::UpstreamTls => "Check protocol and tls.min_version of the upstream against what the endpoint supports.",
        Kind::UpstreamClosed | Kind::UpstreamProtocol => "Look into the log of the endpoint.",
        Kind::UpstreamUnavailable => {
            "Give an endpoint a weight above 0; if the detail names jwt, check the upstream of jwt.jwks."
        }
        Kind::UpstreamSaturated => "Add endpoints, or raise the upstream's limits.",
        Kind::UpstreamTimeout => "Find out why the endpoint is slow, or raise the upstream's timeout.",
        Kind::UpgradeUnsupported => "Set protocol: http1 for this upstream, or allow WebSocket over HTTP/2 there.",
        Kind::ResponseTooLarge => "Raise body_bytes_max in the filter's filter.toml.",
        Kind::ClientSaturated => {
            "One client has reached its limit of concurrent exchanges: raise limits.in_flight_per_client or limits.in_flight."
        }
        Kind::Internal => "Report this as a defect of the gateway, with the log.",
    }
}

/// What to do about a status that the gateway did not choose itself.
fn origin_advice(origin: &str) -> &'static str {
    match origin {
        "filter-status" => "Look into the filter and its lines in the log.",
        "route-status" => "Look at respond or redirect of the route in gateway.yaml.",
        _ => "Look into the log of the endpoint.",
    }
}

fn filter_advice(failure: FilterFailure) -> &'static str {
    match failure {
        FilterFailure::Trap | FilterFailure::Error | FilterFailure::InvalidOutput => {
            "Correct the filter, or put its previous version back."
        }
        FilterFailure::Deadline => "Make the filter faster, or raise filters.NAME.timeout or timeouts.filters.",
        FilterFailure::Memory => "Raise filters.NAME.memory, or make the filter use less.",
        FilterFailure::Limit => "Make the filter use less; docs/reference/wit.md has the limits of one call.",
        FilterFailure::Loop => "Look for a call of a filter that leads back to the filter's own route.",
        FilterFailure::Saturated => {
            "Raise the limit that the detail names: filters.NAME.concurrency, limits.buffered_bytes or limits.in_flight (after a restart)."
        }
    }
}
