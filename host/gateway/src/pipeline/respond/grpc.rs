//! Gives error responses that the gateway or a filter made the form that gRPC clients expect:
//! status 200 and `grpc-status` in the only header section ("Trailers-Only").
//!
//! This is the last step: filters, logs and metrics see the HTTP status. A response of the upstream
//! stays as it is. This module does not know: where a failure came from.

use std::fmt::Write as _;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};

use super::Local;
use witgate_http::body::Body;
use witgate_http::error::{FilterFailure, Kind};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The bytes of a filter's response that become the message.
const MESSAGE_BYTES_MAX: usize = 512;

/// Marks a response without a body whose head is the end of the stream. It has no content-length.
#[derive(Clone)]
pub(crate) struct TrailersOnly;

/// Whether a request is a gRPC call. gRPC-Web, which has other content types, carries its status in
/// the body.
pub fn is_call(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2
        && headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            let rest = value.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
        })
}

/// Turns the response to a gRPC call into gRPC's form, if it is an error that the upstream did not
/// send. `failure` is the reason, if the exchange failed.
pub fn finish(response: http::Response<Body>, failure: Option<Kind>) -> http::Response<Body> {
    let status = response.status();
    if status.as_u16() < 400 || response.extensions().get::<Local>().is_none() {
        return response;
    }
    let failure = failure.filter(|kind| kind.status() == status);
    let code = failure.map_or_else(|| code_of_status(status), code_of_failure);
    let message = match (failure, response.body().buffered()) {
        (Some(kind), _) => kind.public_message().as_bytes(),
        (None, Some(text)) if !text.is_empty() && !response.headers().contains_key(header::CONTENT_ENCODING) => {
            &text[..text.len().min(MESSAGE_BYTES_MAX)]
        }
        _ => status.canonical_reason().unwrap_or_default().as_bytes(),
    };
    let message = HeaderValue::try_from(percent_encode(message)).unwrap_or_else(|_| HeaderValue::from_static(""));
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::OK;
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::ETAG, header::TRAILER] {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(GRPC_STATUS, HeaderValue::from(code));
    head.headers.insert(GRPC_MESSAGE, message);
    head.extensions.insert(TrailersOnly);
    http::Response::from_parts(head, Body::empty())
}

/// The gRPC status of a failed exchange. A client may repeat a call that was UNAVAILABLE.
const fn code_of_failure(kind: Kind) -> u16 {
    match kind {
        Kind::UpstreamTimeout | Kind::Filter(FilterFailure::Deadline) | Kind::ClientTimeout => DEADLINE_EXCEEDED,
        Kind::BodyTooLarge | Kind::ResponseTooLarge | Kind::HeadTooLarge | Kind::UriTooLong => RESOURCE_EXHAUSTED,
        Kind::UpstreamConnect
        | Kind::UpstreamConnectTimeout
        | Kind::UpstreamUnroutable
        | Kind::UpstreamDns
        | Kind::UpstreamClosed
        | Kind::UpstreamCertificate
        | Kind::UpstreamTls => UNAVAILABLE,
        Kind::Filter(FilterFailure::Saturated) => UNAVAILABLE,
        Kind::Filter(_) | Kind::UpstreamProtocol => INTERNAL,
        _ => code_of_status(kind.status()),
    }
}

const UNKNOWN: u16 = 2;
const DEADLINE_EXCEEDED: u16 = 4;
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

/// The mapping that gRPC clients use ("HTTP to gRPC Status Code Mapping"), but a rate limit (429),
/// a body that is too large (413) and a timeout (504) have codes of their own.
const fn code_of_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 | 500 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 | 501 => UNIMPLEMENTED,
        413 | 429 | 431 => RESOURCE_EXHAUSTED,
        408 | 504 => DEADLINE_EXCEEDED,
        502 | 503 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// Encodes a message as gRPC says: visible ASCII and space stay, except for `%`.
fn percent_encode(message: &[u8]) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.trim_ascii() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => drop(write!(text, "%{byte:02X}")),
            byte => text.push(char::from(*byte)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::respond;
    use witgate_http::error::Error;

    fn field<'r>(response: &'r http::Response<Body>, name: &str) -> &'r str {
        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    #[test]
    fn a_failure_becomes_trailers_only() {
        let cases = [
            (Kind::UpstreamTimeout, "4"),
            (Kind::UpstreamConnectTimeout, "14"),
            (Kind::UpstreamConnect, "14"),
            (Kind::UpstreamUnavailable, "14"),
            (Kind::Saturated, "14"),
            (Kind::BodyTooLarge, "8"),
            (Kind::Filter(FilterFailure::Trap), "13"),
            (Kind::Filter(FilterFailure::Deadline), "4"),
            (Kind::NoRoute, "12"),
            (Kind::Internal, "13"),
        ];
        for (kind, code) in cases {
            let made = respond::finish(respond::to_error(&Error::new(kind, "private"), "id", &[]), Body::empty());
            let response = finish(made, Some(kind));
            assert_eq!((response.status().as_u16(), field(&response, "grpc-status")), (200, code), "{kind:?}");
            assert_eq!(field(&response, "grpc-message"), kind.public_message());
            assert_eq!(field(&response, "content-type"), "application/grpc");
            assert_eq!(response.body().buffered(), Some(&b""[..]));
        }
    }

    #[test]
    fn a_filters_refusal_keeps_its_text_and_an_upstreams_error_everything() {
        let mut reply = http::Response::new(Body::full("50 % é\nover".into()));
        *reply.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        reply.extensions_mut().insert(Local);
        let response = finish(reply, None);
        let fields = (field(&response, "grpc-status"), field(&response, "grpc-message"));
        assert_eq!(fields, ("8", "50 %25 %C3%A9%0Aover"));
        let mut upstream = http::Response::new(Body::empty());
        *upstream.status_mut() = StatusCode::BAD_GATEWAY;
        assert_eq!(finish(upstream, None).status(), 502);
    }

    #[test]
    fn only_grpc_over_http_2_is_a_call() {
        let is = |version, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            is_call(version, &headers)
        };
        assert!(is(Version::HTTP_2, "application/grpc") && is(Version::HTTP_2, "application/grpc+proto"));
        assert!(!is(Version::HTTP_2, "application/grpc-web") && !is(Version::HTTP_11, "application/grpc"));
    }
}
