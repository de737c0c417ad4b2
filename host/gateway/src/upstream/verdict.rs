//! Classifies how an attempt ended, for the metrics and for outlier detection.
//!
//! This module does not know: endpoints, retries.

use http::StatusCode;

use witgate_http::error::{Error, Kind};

use super::retry::Cause;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptResult {
    /// A response with a status below 500.
    Answered,
    /// A response with status 502, 503 or 504: the endpoint or its own upstream is not available.
    Unavailable,
    /// A response with another status from 500.
    ServerError,
    /// No connection.
    Connect,
    /// The connection closed before the response's head arrived.
    Reset,
    /// No response in time.
    Timeout,
    /// The response is not valid HTTP.
    Protocol,
    /// The request was not sent because of a limit.
    LimitReached,
    /// The client aborted the request, or its request is at fault.
    Client,
}

/// What an attempt says about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Success,
    Failure,
    /// Nothing: the request did not reach the endpoint as a whole.
    Unknown,
}

impl AttemptResult {
    pub(super) fn of(result: Result<StatusCode, &Error>) -> Self {
        match result {
            Ok(status) => match status.as_u16() {
                502..=504 => Self::Unavailable,
                500.. => Self::ServerError,
                _ => Self::Answered,
            },
            Err(error) if !error.kind.is_upstream() => Self::Client,
            Err(error) if error.kind == Kind::UpstreamSaturated => Self::LimitReached,
            Err(error) => match Cause::of(error.kind) {
                Cause::Connect => Self::Connect,
                Cause::Reset => Self::Reset,
                Cause::Timeout => Self::Timeout,
                Cause::Status(_) | Cause::Other => Self::Protocol,
            },
        }
    }

    pub(super) const fn verdict(self) -> Verdict {
        match self {
            Self::Answered | Self::ServerError => Verdict::Success,
            Self::Unavailable | Self::Connect | Self::Reset | Self::Timeout | Self::Protocol => Verdict::Failure,
            Self::LimitReached | Self::Client => Verdict::Unknown,
        }
    }

    /// The label `result` of `witgate_upstream_requests_total`.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Answered => "ok",
            Self::Unavailable | Self::ServerError => "5xx",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::LimitReached => "limit",
            Self::Client => "client",
        }
    }
}
