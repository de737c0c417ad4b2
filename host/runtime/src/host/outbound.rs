//! `http`: checks a request of a filter, counts the call, and waits for the response.
//!
//! The call's fiber is suspended while it waits: it holds no thread, and its time of work stands
//! still. This module does not know: connections, upstreams.

use std::time::Duration;

use wasmtime::Result;
use witgate_http::error::FilterFailure;

use super::fields;
use crate::bindings::witgate::gateway::http;
use crate::failure::HostTrap;
use crate::filter::CallState;
use crate::outbound::{CALLS_IN_SEQUENCE_MAX, HttpGrant, RequestParts, SendError};
use crate::replay::Response;

impl http::Host for CallState {
    async fn send(&mut self, request: http::Request) -> Result<Result<http::Response, http::Error>> {
        if self.exchange.passed.calls >= CALLS_IN_SEQUENCE_MAX {
            let message = format!(
                "it calls another service for an exchange that {} calls of filters led to: does a call lead back to this route?",
                self.exchange.passed.calls
            );
            return Err(HostTrap::new(FilterFailure::Loop, message).into());
        }
        let result = self.send_granted(request).await;
        Ok(self.outbound_calls.count(result).map_err(Into::into))
    }
}

impl CallState {
    async fn send_granted(&mut self, request: http::Request) -> std::result::Result<http::Response, SendError> {
        let filter = self.filter.clone();
        let (Some(grant), Some(waits)) = (&filter.settings.http, self.waits.clone()) else {
            let name = &filter.settings.name;
            let message = format!(
                "there is no service to call: `witgate test` and `witgate bench` have none (test the call with the SDK's fake), and a gateway grants them under filters.{name}.http.origins"
            );
            return Err(SendError::Denied(message));
        };
        let name = &filter.settings.name;
        if let Err(calls) = waits.count_call(grant.calls) {
            let max = grant.calls;
            return Err(SendError::Limit(format!("{calls} calls in one handler; filters.{name}.http.calls is {max}")));
        }
        let timeout = timeout(name, grant, waits.total(), request.timeout_ms)?;
        let http::Request { method, url, headers, body, .. } = request;
        let recorded = self.replay.is_some().then(|| (method.clone(), url.clone(), body.clone()));
        let body = self.exchange.hold(body.into()).map_err(|refusal| SendError::Limit(refusal.message()))?;
        let parts = RequestParts { method, url, headers, body };
        let call = grant.check(&self.exchange, parts, timeout)?;
        if let (Some(replay), Some(recorded)) = (self.replayed(), &recorded) {
            let Response { status, headers, body } = replay.response(recorded).ok_or_else(|| {
                SendError::Unavailable("a shadow sends nothing that the version in service did not send".into())
            })?;
            return Ok(http::Response { status, headers, body });
        }
        let before = waits.total();
        let wait = waits.begin();
        let sender = self.exchange.sender.as_ref().unwrap_or(&grant.sender);
        let answered = tokio::time::timeout(timeout, sender.send(call)).await;
        drop(wait);
        self.deadline += waits.total().saturating_sub(before);
        // The clock's ticks during the wait do not mean that the call is long.
        self.has_waited = true;
        let response = answered.unwrap_or_else(|_| {
            Err(SendError::Timeout(format!("no complete response within {timeout:?} (filters.{name}.http.wait)")))
        })?;
        let (status, headers) = (response.status().as_u16(), fields::all(response.headers()));
        let body = response.into_body().to_vec();
        if let (Some(record), Some(recorded)) = (self.recorded(), recorded) {
            record.record_response(recorded, Response { status, headers: headers.clone(), body: body.clone() });
        }
        Ok(http::Response { status, headers, body })
    }
}

/// The time for one call: what the filter asks for, within what is left of the operator's bound.
fn timeout(
    filter: &str,
    grant: &HttpGrant,
    waited: Duration,
    asked_ms: u32,
) -> std::result::Result<Duration, SendError> {
    let left = grant.wait.saturating_sub(waited);
    if left.is_zero() {
        return Err(SendError::Timeout(format!(
            "earlier calls of the handler waited for {:?}, which is all of filters.{filter}.http.wait",
            grant.wait
        )));
    }
    Ok(match asked_ms {
        0 => left,
        asked => left.min(Duration::from_millis(asked.into())),
    })
}

impl From<SendError> for http::Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Denied(why) => Self::Denied(why),
            SendError::Invalid(why) => Self::Invalid(why),
            SendError::Limit(why) => Self::Limit(why),
            SendError::Timeout(why) => Self::Timeout(why),
            SendError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
