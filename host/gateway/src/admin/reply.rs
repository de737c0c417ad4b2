//! The responses of the admin listener.
//!
//! This module does not know: resources.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

/// A complete response.
pub(super) type Reply = Response<Full<Bytes>>;

/// Plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain", body)
}

/// Status 200 and formatted JSON.
pub(super) fn json(value: &serde_json::Value) -> Reply {
    reply(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

/// Status 200 and formatted JSON of a typed response.
pub(super) fn serialized(answer: &impl serde::Serialize) -> Reply {
    // An error is impossible: the responses have no maps with keys other than strings.
    json(&serde_json::to_value(answer).unwrap_or_default())
}

/// A response with this status, content type and body.
pub(super) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
