//! The requests that a component sends (`wasi:http/outgoing-handler`): only to origins that the
//! operator grants, by the same rules as the calls of filters.
//!
//! Bodies are whole, as for filters: the body of a request is collected before it is sent. This
//! module does not know: connections, upstreams.

use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::Instant;
use wasmtime_wasi_http::{Error as WasiError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::exchange::{Exchange, Passed};
use crate::outbound::{CALLS_IN_SEQUENCE_MAX, HttpGrant, RequestParts, SendError};
use witgate_http::semantics::fields::is_hop_by_hop;

/// Bytes that a component writes into a body in one call. Two such parts wait for the reader.
const BODY_CHUNK_BYTES: usize = 64 << 10;

/// Decides about the requests that a component sends for one request that it answers.
pub(super) struct Outgoing {
    /// `None`: nothing is granted.
    grant: Option<HttpGrant>,
    passed: Passed,
    request_id: Option<http::HeaderValue>,
    calls: u32,
}

impl Outgoing {
    /// Nothing is granted before [`Self::begin`].
    pub(super) fn none() -> Self {
        Self { grant: None, passed: Passed::default(), request_id: None, calls: 0 }
    }

    /// The component answers a request with these fields.
    pub(super) fn begin(grant: Option<&HttpGrant>, headers: &http::HeaderMap) -> Self {
        let Some(grant) = grant else { return Self::none() };
        let request_id = headers.get("x-request-id").cloned();
        Self { grant: Some(grant.clone()), passed: Passed::of(headers), request_id, calls: 0 }
    }

    /// Counts a request.
    fn count(&mut self) -> Result<HttpGrant, WasiError> {
        let Some(grant) = &self.grant else { return Err(WasiError::HttpRequestDenied) };
        if self.passed.calls >= CALLS_IN_SEQUENCE_MAX {
            return Err(WasiError::LoopDetected);
        }
        if self.calls >= grant.calls {
            return Err(WasiError::ConnectionLimitReached);
        }
        self.calls += 1;
        Ok(grant.clone())
    }

    /// What a request is checked with.
    fn exchange(&self) -> Exchange {
        let mut exchange = Exchange { passed: self.passed, ..Exchange::blank() };
        if let Some(id) = &self.request_id {
            exchange.request.headers.insert("x-request-id", id.clone());
        }
        exchange
    }
}

type Done = Box<dyn Future<Output = Result<(), WasiError>> + Send>;
type Response = (http::Response<WasiBody>, Done);

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        body_written: Done,
    ) -> Box<dyn Future<Output = Result<Response, WasiError>> + Send> {
        let (counted, exchange) = (self.count(), self.exchange());
        Box::new(async move {
            // The body below ends with an error if the component does not finish it.
            drop(body_written);
            let grant = counted?;
            let asked = options.and_then(|options| options.first_byte_timeout).unwrap_or(Duration::MAX);
            let timeout = grant.wait.min(asked);
            let sending = send(&grant, &exchange, request, timeout);
            match tokio::time::timeout(timeout, sending).await {
                Ok(response) => response,
                Err(_) => Err(WasiError::HttpResponseTimeout),
            }
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

async fn send(
    grant: &HttpGrant,
    exchange: &Exchange,
    request: http::Request<WasiBody>,
    timeout: Duration,
) -> Result<Response, WasiError> {
    let until = Instant::now() + timeout;
    let (head, body) = request.into_parts();
    let body = Limited::new(body, grant.request_bytes).collect().await;
    let body = body.map_err(|_| WasiError::HttpRequestBodySize(Some(grant.request_bytes as u64)))?;
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned);
    let is_own = |name: &http::HeaderName| !is_hop_by_hop(name) && *name != "host" && *name != "content-length";
    let fields = head.headers.iter().filter(|(name, _)| is_own(name));
    let headers = fields.map(|(name, value)| Ok((name.as_str().to_owned(), text(value)?)));
    let parts = RequestParts {
        method: head.method.as_str().to_owned(),
        url: head.uri.to_string(),
        headers: headers.collect::<Result<_, http::header::ToStrError>>().map_err(|_| WasiError::HttpProtocolError)?,
        body: body.to_bytes().to_vec(),
    };
    let left = until.saturating_duration_since(Instant::now());
    let call = grant.check(exchange, parts, left).map_err(refused)?;
    let response = grant.sender.send(call).await.map_err(refused)?;
    let body = |bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    let done: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(std::future::ready(Ok(())));
    Ok((response.map(body), Box::new(done)))
}

fn refused(error: SendError) -> WasiError {
    match error {
        SendError::Denied(_) => WasiError::HttpRequestDenied,
        SendError::Invalid(_) => WasiError::HttpRequestUriInvalid,
        SendError::Limit(_) => WasiError::HttpResponseBodySize(None),
        SendError::Timeout(_) => WasiError::HttpResponseTimeout,
        SendError::Unavailable(_) => WasiError::DestinationUnavailable,
    }
}
