//! A call of a component that runs: its guest, and the request's body that it reads.
//!
//! This module does not know: what becomes of the response.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::oneshot;
use wasmtime::component::Resource;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use super::loaded::{HttpComponent, State};
use super::request_body::{Feed, to_guest};
use crate::failure::{Failure, HostTrap};
use crate::filter::HANDLES_MAX;
use crate::instance::HOSTCALL_BYTES_MAX;
use crate::stacks;
use crate::time_slices::{self, LongCall};
use crate::wasi_http::{Holder, Outgoing};
use witgate_http::body::Body;
use witgate_http::error::{Error, FilterFailure, Kind};
use witgate_http::limiter::Permit;
use witgate_http::text::bounded;

/// The head of a response as the guest sets it.
pub(super) type GuestHead = Result<http::Response<HyperOutgoingBody>, ErrorCode>;
/// The guest's result, and the store that holds what it has not sent.
type Guest = Pin<Box<dyn Future<Output = (wasmtime::Result<()>, Store<State>)>>>;

/// A call whose guest has not returned, or whose store is still needed.
pub(super) struct Running {
    component: Arc<HttpComponent>,
    guest: Option<Guest>,
    returned: Option<Store<State>>,
    feed: Option<Feed>,
    /// Why the request body ended early.
    request_error: Option<Error>,
    _permit: Permit,
}

impl Running {
    pub(super) fn start(
        component: &Arc<HttpComponent>,
        request: http::Request<Body>,
        deadline: Instant,
        (permit, holder): (Permit, Holder),
    ) -> Result<(Box<Self>, oneshot::Receiver<GuestHead>), Error> {
        let mut state = State::new(component, deadline);
        state.held.begin(&holder);
        state.hooks = Outgoing::of_request(component.settings.http.as_ref(), request.headers(), holder);
        let is_https = request.headers().get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let scheme = if is_https { Scheme::Https } else { Scheme::Http };
        let (head, body) = request.into_parts();
        let (body, feed) = to_guest(body);
        let (sender, receiver) = oneshot::channel();
        let request = state.http().new_incoming_request(scheme, http::Request::from_parts(head, body));
        let handles = request.and_then(|request| Ok((request, state.http().new_response_outparam(sender)?)));
        let (request, outparam) = handles.map_err(|error| component.failed(&Failure::from(error)))?;
        let guest: Guest = Box::pin(run(component.clone(), state, request, outparam));
        let component = component.clone();
        let running =
            Self { component, guest: Some(guest), returned: None, feed, request_error: None, _permit: permit };
        Ok((Box::new(running), receiver))
    }

    /// Passes the request's body on and runs the guest. Ready once the guest has returned.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(feed) = &mut self.feed
            && let Poll::Ready(fed) = feed.as_mut().poll(context)
        {
            self.feed = None;
            self.request_error = fed.err();
        }
        let Some(guest) = &mut self.guest else { return Poll::Ready(Ok(())) };
        let polled = guest.as_mut().poll(context);
        time_slices::end();
        let Poll::Ready((result, store)) = polled else { return Poll::Pending };
        self.guest = None;
        self.returned = Some(store);
        Poll::Ready(result.map_err(|error| self.component.failed(&Failure::from(error))))
    }

    pub(super) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        receiver: &mut oneshot::Receiver<GuestHead>,
    ) -> Poll<Result<http::Response<HyperOutgoingBody>, Error>> {
        let returned = match self.poll(context) {
            // The guest failed, so the rest of its response would not come.
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.request_error.take().unwrap_or(error))),
            returned => returned.is_ready(),
        };
        match Pin::new(receiver).poll(context) {
            Poll::Ready(Ok(Ok(response))) => Poll::Ready(Ok(response)),
            Poll::Ready(Ok(Err(code))) => {
                let detail = format!("its component answered with the error {}", bounded(format_args!("{code:?}")));
                let error = self.component.fail(Kind::UpstreamProtocol, &detail);
                Poll::Ready(Err(self.request_error.take().unwrap_or(error)))
            }
            Poll::Ready(Err(_)) | Poll::Pending if returned => {
                let error = self.component.fail(Kind::UpstreamProtocol, "its component returned without a response");
                Poll::Ready(Err(self.request_error.take().unwrap_or(error)))
            }
            // The outparam was dropped; the guest may still trap and say more.
            Poll::Ready(Err(_)) | Poll::Pending => match self.request_error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}

async fn run(
    component: Arc<HttpComponent>,
    state: State,
    request: Resource<HostIncomingRequest>,
    outparam: Resource<HostResponseOutparam>,
) -> (wasmtime::Result<()>, Store<State>) {
    let _active = component.calls.enter();
    let began = Instant::now();
    // Calls of a component whose calls are long begin one after the other.
    if component.long_calls.load(Ordering::Relaxed) > 0 {
        time_slices::next(component.long_calls.clone()).await;
    }
    let mut store = new_store(&component, state);
    let result = match component.pre.instantiate_async(&mut store).await {
        Ok(proxy) => proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await,
        Err(error) => Err(error),
    };
    let address = std::mem::take(&mut store.data_mut().stack_address);
    if began.elapsed() >= stacks::DEEP_CALL_MIN {
        component.stacks.release_deep(address);
    }
    store.data_mut().long_call = None;
    (result, store)
}

/// A store with the limits of a call.
pub(super) fn new_store(component: &HttpComponent, state: State) -> Store<State> {
    let mut store = Store::new(&component.engine, state);
    store.limiter(|state| &mut state.limits);
    store.set_max_component_handles(HANDLES_MAX);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.epoch_deadline_callback(|mut context| {
        let state = context.data_mut();
        if state.stack_address == 0 {
            // The first function of the call has just begun; the first tick may come at once.
            state.stack_address = stacks::address();
            return Ok(UpdateDeadline::Continue(2));
        }
        if Instant::now() >= state.deadline {
            return Err(HostTrap::new(FilterFailure::Deadline, "its time was up").into());
        }
        let component = &state.component;
        component.calls.request_fast_ticks();
        state.long_call.get_or_insert_with(|| LongCall::new(&component.long_calls));
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(time_slices::next(component.long_calls.clone()))))
    });
    store.set_epoch_deadline(0);
    store
}
