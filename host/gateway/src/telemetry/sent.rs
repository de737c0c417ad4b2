//! The requests that filters send to other services in one exchange, for its trace.
//!
//! This module does not know: how a request is sent, what a span contains.

use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use smallvec::SmallVec;

use super::attempt::AttemptRecord;

/// The most requests of one exchange that become spans.
const SENT_MAX: usize = 32;

/// A request that a filter sent.
pub struct SentRequest {
    /// The method.
    pub method: Method,
    /// The URL without its query, which may have secrets.
    pub url: String,
    /// The upstream that it went to.
    pub upstream: Arc<str>,
    /// Each try. If there was none, one that stands for the failure.
    pub attempts: SmallVec<[AttemptRecord; 1]>,
}

/// Collects the requests of an exchange. Those above a bound are dropped.
#[derive(Default)]
pub struct SentRequests(Mutex<Collected>);

#[derive(Default)]
struct Collected {
    waiting: Vec<SentRequest>,
    count: usize,
}

impl SentRequests {
    /// Adds a request that has ended.
    pub fn add(&self, sent: SentRequest) {
        let mut collected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if collected.count < SENT_MAX {
            collected.count += 1;
            collected.waiting.push(sent);
        }
    }

    /// Those that were added since the last time.
    pub fn take(&self) -> Vec<SentRequest> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting)
    }
}
