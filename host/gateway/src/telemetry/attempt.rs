//! The tries to send a request to a server, as they are recorded.
//!
//! This module does not know: how a request is sent, who reads the record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// What the upstream did.
#[derive(Default)]
pub struct UpstreamRecord {
    /// Each attempt to send the request. An attempt's result is the reason for the next one.
    pub attempts: SmallVec<[AttemptRecord; 1]>,
    /// When the request filters were done. None if the upstream was not asked.
    pub started: Option<Instant>,
    /// From then to the complete head of the upstream's response, all attempts included.
    pub head_after: Option<Duration>,
}

/// One attempt to send a request to an endpoint.
pub struct AttemptRecord {
    /// Host and port.
    pub endpoint: Arc<str>,
    /// One of `UPSTREAM_RESULTS`.
    pub result: &'static str,
    /// Time that a new connection took. None if an open one was used.
    pub connect: Option<Duration>,
    /// Time to the response's head, or to the failure.
    pub duration: Duration,
    /// When the attempt began.
    pub started: Instant,
    /// The status of the response, if one came.
    pub status: Option<u16>,
    /// Names the attempt in a trace; 0 if traces are off.
    pub span_id: u64,
}
