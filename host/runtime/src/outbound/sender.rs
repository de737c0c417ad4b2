//! Who sends the calls of filters, and what a sender gets and returns.
//!
//! This module does not know: grants, exchanges.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use witgate_http::body_budget::Budget;
use witgate_http::semantics::origin::Origin;

/// Sends requests to upstreams.
pub trait HttpSender: Send + Sync {
    /// Sends a request and reads the whole response. Dropping the future cancels the request.
    fn send(&self, call: OutboundCall) -> Sending;
}

/// A call that is on its way.
pub type Sending = Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, SendError>> + Send>>;

/// A checked request, and what it may use.
pub struct OutboundCall {
    /// The name of the upstream.
    pub upstream: Arc<str>,
    /// The origin of the URL that the filter wrote.
    pub origin: Origin,
    /// The request: path and query as target, `host` and `via` among the fields.
    pub request: http::Request<Bytes>,
    /// The longest wait.
    pub timeout: Duration,
    /// The largest body of the response.
    pub response_bytes: usize,
    /// The client of the exchange.
    pub client: IpAddr,
    /// What the exchanges of the route may hold in memory.
    pub budget: Option<Arc<Budget>>,
}

/// Why a call has no response: the cases of `error` in the WIT interface. The text is for the
/// author and the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// The origin is not granted, or its address may not be called.
    Denied(String),
    /// The request is not valid.
    Invalid(String),
    /// A bound of the operator.
    Limit(String),
    /// The time is up.
    Timeout(String),
    /// The service cannot be reached, or closed the connection early.
    Unavailable(String),
}

impl SendError {
    /// The name of the case in WIT, and its text.
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Denied(text) => ("denied", text),
            Self::Invalid(text) => ("invalid", text),
            Self::Limit(text) => ("limit", text),
            Self::Timeout(text) => ("timeout", text),
            Self::Unavailable(text) => ("unavailable", text),
        }
    }

    /// The name of the case in WIT.
    pub fn label(&self) -> &'static str {
        self.parts().0
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = self.parts();
        write!(formatter, "{kind}: {text}")
    }
}

impl std::error::Error for SendError {}
