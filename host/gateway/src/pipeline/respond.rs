//! Responses that the gateway makes itself. Only this file turns a failure into a response.
//!
//! The client gets a short JSON text and a `Proxy-Status` field (RFC 9209), both with the request
//! id, by which the operator finds the details in the log. This module does not know: where a
//! failure came from.

pub mod grpc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use witgate_config::ErrorPage;
use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};
use witgate_runtime::exchange::{Reply, Response};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// Seconds until a client may try again when the gateway is saturated.
const RETRY_AFTER: &str = "1";
/// The methods that the gateway serves, as far as no route has others.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// The response to a failed exchange, with the body of the first of `pages` that is for it. The
/// request id has no character that JSON, HTML or a structured field would escape.
pub fn to_error(error: &Error, request_id: &str, pages: &[ErrorPage]) -> Response {
    let kind = error.kind;
    let mut headers = HeaderMap::with_capacity(6);
    let page = ErrorPage::find(pages, kind);
    let content_type = page.map_or(HeaderValue::from_static("application/json"), |page| page.content_type.clone());
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (kind_name, details) = (kind.proxy_status(), kind.label());
    let status = format!("witgate; error={kind_name}; details=\"{details}\"; request-id=\"{request_id}\"");
    if let Ok(status) = HeaderValue::try_from(status) {
        headers.insert(PROXY_STATUS, status);
    }
    if kind.is_saturation() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    if kind == Kind::MethodNotAllowed {
        // RFC 9110, section 15.5.6.
        headers.insert(header::ALLOW, METHODS);
    }
    let body = match page {
        Some(page) => page.body.replace("{request_id}", request_id),
        None => format!("{{\"error\":\"{}\",\"request_id\":\"{request_id}\"}}\n", kind.public_message()),
    };
    Response { status: kind.status(), headers, local: true, body: Some(Bytes::from(body)) }
}

/// The response to a request for the gateway itself (RFC 9110, section 9.3.7).
pub fn to_options() -> Response {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(header::ALLOW, METHODS);
    Response { status: StatusCode::OK, headers, local: true, body: Some(Bytes::new()) }
}

/// The response that a filter made.
pub fn to_reply(reply: Reply) -> Response {
    Response { status: reply.status, headers: reply.headers, local: true, body: Some(reply.body) }
}

/// Marks a response that the gateway or a filter made.
#[derive(Clone)]
struct Local;

/// The response as the server sends it. A body in memory takes precedence over `streamed`.
pub fn finish(response: Response, streamed: Body) -> http::Response<Body> {
    let mut finished = http::Response::new(response.body.map_or(streamed, Body::full));
    *finished.status_mut() = response.status;
    *finished.headers_mut() = response.headers;
    if response.local {
        finished.extensions_mut().insert(Local);
    }
    if matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        *finished.body_mut() = Body::empty();
    }
    finished
}

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_http::error::FilterFailure;

    #[test]
    fn the_client_gets_only_the_public_part() {
        let response = to_error(
            &Error::new(Kind::Filter(FilterFailure::Trap), "filter api-key 1.2 at 0x12: unreachable"),
            "a1",
            &[],
        );
        assert_eq!(response.status, 502);
        let body = response.body.unwrap_or_default();
        assert_eq!(&body[..], b"{\"error\":\"a filter failed\",\"request_id\":\"a1\"}\n");
        assert_eq!(
            response.headers.get("proxy-status").and_then(|value| value.to_str().ok()),
            Some("witgate; error=proxy_internal_error; details=\"trap\"; request-id=\"a1\"")
        );
    }

    #[test]
    fn saturation_has_retry_after() {
        let response = to_error(&Error::new(Kind::Saturated, ""), "a1", &[]);
        assert_eq!((response.status.as_u16(), response.headers.contains_key("retry-after")), (503, true));
    }
}
