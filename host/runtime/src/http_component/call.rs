//! One call of a component: a fresh instance, the request, and the response as it comes.
//!
//! The guest may write the body of its response after it has sent the head. So the body of the
//! response owns the call and runs it while somebody reads: nothing of a call outlives its
//! exchange, and there is no task of its own. A call ends with its response. This module does not
//! know: routes, retries.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, header};

use super::loaded::{HttpComponent, State};
use super::response_body::ResponseBody;
use super::running::{Running, new_store};
use crate::failure::Failure;
use crate::time_slices;
use crate::wasi_http::Holder;
use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};

/// The time for the start functions of an instance when a component is loaded.
const START_TIME: Duration = Duration::from_secs(1);

/// Answers a request. The body of the response must be read before `deadline`.
///
/// # Errors
///
/// The component has as many calls as it may, fails, or does not respond with a valid head. Or the
/// request body ended early, before the response.
pub async fn call(
    component: &Arc<HttpComponent>,
    request: http::Request<Body>,
    deadline: Instant,
    holder: Holder,
) -> Result<http::Response<Body>, Error> {
    let max = component.settings.concurrency;
    let Ok(permit) = component.running_calls.try_acquire(max) else {
        let detail = format!("{max} concurrent requests, the limit is component.concurrency");
        return Err(component.fail(Kind::UpstreamSaturated, &detail));
    };
    let is_head = request.method() == Method::HEAD;
    let (mut running, mut receiver) = Running::start(component, request, deadline, (permit, holder))?;
    let response = poll_fn(|context| running.poll_head(context, &mut receiver)).await?;
    let (mut head, body) = response.into_parts();
    if head.status < StatusCode::OK || head.status.as_u16() > 599 {
        let detail = format!("its component answered with status {}", head.status.as_u16());
        return Err(component.fail(Kind::UpstreamProtocol, &detail));
    }
    head.extensions = http::Extensions::new();
    let length = content_length(&head.headers).map_err(|why| component.fail(Kind::UpstreamProtocol, why))?;
    let is_bodiless = is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut body = Some(ResponseBody::new(running, body, length));
    let body = poll_fn(|context| Poll::Ready(body.take().map(|body| body.into_body(context, is_bodiless)))).await;
    Ok(http::Response::from_parts(head, body.unwrap_or_default()))
}

/// Creates and drops an instance, to find out whether its start functions succeed.
///
/// # Errors
///
/// They would fail in the same way for every request.
pub async fn try_instantiate(component: &Arc<HttpComponent>) -> Result<(), Failure> {
    let _active = component.calls.enter();
    let mut store = new_store(component, State::new(component, Instant::now() + START_TIME));
    let created = time_slices::in_turns(component.pre.instantiate_async(&mut store));
    match tokio::time::timeout(START_TIME, created).await {
        Ok(created) => created.map(drop).map_err(Failure::from),
        Err(_) => Err(Failure::deadline()),
    }
}

/// The length that a head names.
fn content_length(headers: &http::HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let is_number = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    let length = line.to_str().ok().filter(|_| is_number(line)).and_then(|text| text.parse().ok());
    match (length, lines.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err("its component sent no valid content-length"),
    }
}
