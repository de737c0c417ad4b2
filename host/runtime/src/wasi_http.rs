//! The requests that components and filters send by `wasi:http/outgoing-handler`: only to origins
//! that the operator grants, by the same rules as the calls by `witgate:gateway/http`.
//!
//! For a filter, waiting for a response counts as work: the guest may go on meanwhile. Bodies are
//! whole, as for filters: the body of a request is collected before it is sent. This module does
//! not know: connections, upstreams.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::{Error as WasiError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::exchange::{Client, Exchange, Passed};
use crate::outbound::{CALLS_IN_SEQUENCE_MAX, HttpGrant, RequestParts, SendError, inherited};
use crate::waiting::WaitClock;
use witgate_http::body_budget::{Arriving, Budget};
use witgate_http::semantics::fields::is_hop_by_hop;

/// Bytes that a component writes into a body in one call. Two such parts wait for the reader.
pub(crate) const BODY_CHUNK_BYTES: usize = 32 << 10;

/// Whose share the bodies of a component's requests count in.
#[derive(Clone)]
pub struct Holder {
    /// The client of the exchange.
    pub client: IpAddr,
    /// What the exchanges of the route may hold in memory. `None` if nothing is counted.
    pub budget: Option<Arc<Budget>>,
}

/// Decides about the requests of one call: of a component that answers a request, or of a filter.
pub(crate) struct Outgoing {
    /// `None`: nothing is granted.
    grant: Option<HttpGrant>,
    /// What the requests are checked with.
    exchange: Arc<Exchange>,
    /// Counts them.
    waits: Arc<WaitClock>,
    /// How long they have waited.
    waited: Arc<Waits>,
}

impl Outgoing {
    /// Nothing is granted.
    pub(crate) fn none() -> Self {
        Self {
            grant: None,
            exchange: Arc::new(Exchange::blank()),
            waits: Arc::new(WaitClock::new()),
            waited: Arc::default(),
        }
    }

    /// A component answers a request with these fields.
    pub(crate) fn of_request(grant: Option<&HttpGrant>, headers: &http::HeaderMap, holder: Holder) -> Self {
        let Some(grant) = grant else { return Self::none() };
        let Holder { client, budget } = holder;
        let client = Arc::new(Client::new((client, 0).into()));
        let mut exchange = Exchange { passed: Passed::of(headers), client, budget, ..Exchange::blank() };
        exchange.request.headers = inherited(headers);
        Self { grant: Some(grant.clone()), exchange: Arc::new(exchange), ..Self::none() }
    }

    /// A filter is called in an exchange. `waits` also counts the calls that it makes otherwise.
    pub(crate) fn of_exchange(grant: Option<&HttpGrant>, waits: Option<Arc<WaitClock>>, exchange: &Exchange) -> Self {
        let (Some(grant), Some(waits)) = (grant, waits) else { return Self::none() };
        let mut own = Exchange {
            client: exchange.client.clone(),
            budget: exchange.budget.clone(),
            passed: exchange.passed.clone(),
            sender: exchange.sender.clone(),
            ..Exchange::blank()
        };
        own.request.headers = inherited(&exchange.request.headers);
        Self { grant: Some(grant.clone()), exchange: Arc::new(own), waits, ..Self::none() }
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

/// How long a guest has waited for the services that it calls. Calls that wait at the same moment
/// count once. The calls may be on other threads than the guest, hence the lock.
#[derive(Default)]
struct Waits(Mutex<WaitState>);

#[derive(Default)]
struct WaitState {
    /// The calls that wait, and since when there is one.
    running: usize,
    since: Option<Instant>,
    ended: Duration,
}

/// A call that waits, until it is dropped.
struct Wait(Arc<Waits>);

impl Waits {
    /// Begins to wait. Also says for how long the guest has waited before.
    fn begin(self: &Arc<Self>) -> (Wait, Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *state.since.get_or_insert_with(Instant::now);
        state.running += 1;
        (Wait(self.clone()), state.ended + since.elapsed())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.running -= 1;
        if state.running == 0 {
            let waited = state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            state.ended += waited;
        }
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
        let (counted, exchange, waited) = (self.count(), self.exchange.clone(), self.waited.clone());
        Box::new(async move {
            // The body below ends with an error if the component does not finish it.
            drop(body_written);
            let grant = counted?;
            let (head, body) = request.into_parts();
            let reading = tokio::time::timeout(grant.wait, read_body(body, grant.request_bytes, &exchange));
            let body = reading.await.map_err(|_| WasiError::ConnectionWriteTimeout)??;
            let (_wait, before) = waited.begin();
            let asked = options.and_then(|options| options.first_byte_timeout).unwrap_or(Duration::MAX);
            let timeout = grant.wait.saturating_sub(before).min(asked);
            if timeout.is_zero() {
                return Err(WasiError::HttpResponseTimeout);
            }
            let sending = send(&grant, &exchange, (head, body), timeout);
            tokio::time::timeout(timeout, sending).await.unwrap_or(Err(WasiError::HttpResponseTimeout))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

/// Reads the body of a request, and counts it as the guest writes it.
async fn read_body(mut body: WasiBody, bytes_max: usize, exchange: &Exchange) -> Result<Bytes, WasiError> {
    let client = exchange.client.address.ip();
    let mut arriving = exchange.budget.as_ref().map_or_else(Arriving::uncounted, |budget| budget.arriving(client));
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > bytes_max - gathered.len() {
            return Err(WasiError::HttpRequestBodySize(Some(bytes_max as u64)));
        }
        let grown = arriving.grow_to(gathered.len() + data.len());
        grown.map_err(|exceeded| WasiError::InternalError(Some(exceeded.to_string())))?;
        gathered.extend_from_slice(&data);
    }
    Ok(arriving.hold(gathered.freeze()))
}

async fn send(
    grant: &HttpGrant,
    exchange: &Exchange,
    (head, body): (http::request::Parts, Bytes),
    timeout: Duration,
) -> Result<Response, WasiError> {
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned);
    let is_own = |name: &http::HeaderName| !is_hop_by_hop(name) && *name != "host" && *name != "content-length";
    let fields = head.headers.iter().filter(|(name, _)| is_own(name));
    let headers = fields.map(|(name, value)| Ok((name.as_str().to_owned(), text(value)?)));
    let parts = RequestParts {
        method: head.method.as_str().to_owned(),
        url: head.uri.to_string(),
        headers: headers.collect::<Result<_, http::header::ToStrError>>().map_err(|_| WasiError::HttpProtocolError)?,
        body,
    };
    let call = grant.check(exchange, parts, timeout).map_err(refused)?;
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
        SendError::Limit(why) => WasiError::InternalError(Some(why)),
        SendError::Timeout(_) => WasiError::HttpResponseTimeout,
        SendError::Unavailable(_) => WasiError::DestinationUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_at_the_same_moment_count_once_and_later_ones_add_up() {
        let (waits, pause) = (Arc::new(Waits::default()), Duration::from_millis(5));
        let (one, before) = waits.begin();
        assert!(before < pause);
        std::thread::sleep(pause);
        let (two, at_second) = waits.begin();
        assert!(at_second >= pause);
        drop(one);
        std::thread::sleep(pause);
        drop(two);
        let (three, after) = waits.begin();
        drop(three);
        assert!(after >= 2 * pause);
        std::thread::sleep(20 * pause);
        assert!(waits.begin().1 < after + 20 * pause, "the time between calls is no wait");
    }
}
