//! The embedded upstream (`builtin: echo`): answers with the request that it received, as JSON.
//!
//! It serves first steps and tests without a network. This module does not know: pools, endpoints.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http_body::Body as _;

use witgate_http::body::{Body, ReadError};
use witgate_http::error::{Error, Kind};
use witgate_runtime::exchange::Upgrade;

/// Answers `request`; its body must arrive within `timeout`.
pub(super) async fn answer(request: http::Request<Body>, timeout: Duration) -> Result<http::Response<Body>, Error> {
    const BODY_BYTES_MAX: usize = 1 << 20;
    let (head, body) = request.into_parts();
    // An upgrade request has no body, and this upstream does not change the protocol.
    let body = if head.extensions.get::<Upgrade>().is_some() { Body::empty() } else { body };
    let is_head = head.method == http::Method::HEAD;
    let body = match tokio::time::timeout(timeout, body.read(BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => bytes,
        // The client's fault, or its route's limit.
        Ok(Err(ReadError::Broken(error))) => return Err(error),
        Ok(Err(ReadError::TooLarge)) => {
            let detail = format!("echo: a request body of more than {BODY_BYTES_MAX} bytes");
            return Err(Error::new(Kind::BodyTooLarge, detail));
        }
        Err(_) => return Err(Error::new(Kind::UpstreamTimeout, "echo: the request body did not arrive")),
    };
    let headers: Vec<[String; 2]> = head
        .headers
        .iter()
        .map(|(name, value)| [name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    let text = serde_json::json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let mut text = serde_json::to_vec_pretty(&text).unwrap_or_default();
    text.push(b'\n');
    let length = text.len();
    let body = if is_head { Body::empty() } else { Body::full(Bytes::from(text)) };
    let mut response = http::Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if response.body().size_hint().exact() != Some(length as u64) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}
