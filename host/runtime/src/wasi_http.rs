//! The requests that components and filters send by `wasi:http/outgoing-handler`: only to origins
//! that the operator grants, by the same rules as the calls by `witgate:gateway/http`.
//!
//! For a filter, waiting for a response counts as work: the guest may go on meanwhile. Bodies are
//! whole, as for filters: the body of a request is collected before it is sent. This module does
//! not know: connections, upstreams.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::Instant;
use wasmtime_wasi_http::{Error as WasiError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::exchange::{Exchange, Passed};
use crate::outbound::{CALLS_IN_SEQUENCE_MAX, HttpGrant, RequestParts, SendError, inherited};
use crate::waiting::WaitClock;
use witgate_http::semantics::fields::is_hop_by_hop;

/// Bytes that a component writes into a body in one call. Two such parts wait for the reader.
const BODY_CHUNK_BYTES: usize = 64 << 10;

/// Decides about the requests of one call: of a component that answers a request, or of a filter.
pub(crate) struct Outgoing {
    /// `None`: nothing is granted.
    grant: Option<HttpGrant>,
    /// What the requests are checked with.
    exchange: Arc<Exchange>,
    /// Counts them.
    waits: Arc<WaitClock>,
}

impl Outgoing {
    /// Nothing is granted.
    pub(crate) fn none() -> Self {
        Self { grant: None, exchange: Arc::new(Exchange::blank()), waits: Arc::new(WaitClock::new()) }
    }

    /// A component answers a request with these fields.
    pub(crate) fn of_request(grant: Option<&HttpGrant>, headers: &http::HeaderMap) -> Self {
        let Some(grant) = grant else { return Self::none() };
        let mut exchange = Exchange { passed: Passed::of(headers), ..Exchange::blank() };
        exchange.request.headers = inherited(headers);
        Self { grant: Some(grant.clone()), exchange: Arc::new(exchange), waits: Arc::new(WaitClock::new()) }
    }

    /// A filter is called in an exchange. `waits` also counts the calls that it makes otherwise.
    pub(crate) fn of_exchange(grant: Option<&HttpGrant>, waits: Option<Arc<WaitClock>>, exchange: &Exchange) -> Self {
        let (Some(grant), Some(waits)) = (grant, waits) else { return Self::none() };
        let mut own = Exchange {
            client: exchange.client.clone(),
            budget: exchange.budget.clone(),
            passed: exchange.passed,
            sender: exchange.sender.clone(),
            ..Exchange::blank()
        };
        own.request.headers = inherited(&exchange.request.headers);
        Self { grant: Some(grant.clone()), exchange: Arc::new(own), waits }
    }

    /// Counts a request.
    fn count(&self) -> Result<HttpGrant, WasiError> {
        let Some(grant) = &self.grant else { return Err(WasiError::HttpRequestDenied) };
        if self.exchange.passed.calls >= CALLS_IN_SEQUENCE_MAX {
            return Err(WasiError::LoopDetected);
        }
        self.waits.count_call(grant.calls).map_err(|_| WasiError::ConnectionLimitReached)?;
        Ok(grant.clone())
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
        let (counted, exchange) = (self.count(), self.exchange.clone());
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
    let sender = exchange.sender.as_ref().unwrap_or(&grant.sender);
    let response = sender.send(call).await.map_err(refused)?;
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
