//! The last exchanges that failed, in memory, so that an operator finds a failure's cause without
//! a log.
//!
//! Failures that clients cause have a list of their own: a client that repeats invalid requests
//! cannot push out the failures of filters and upstreams. Each entry is bounded text.
//! This module does not know: who reads the lists.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::access::describe;
use super::explain::{advice, explanation};
use super::record::{End, ExchangeRecord};

/// Entries of each list.
const FAILURES_MAX: usize = 256;

/// The last exchanges that failed.
#[derive(Default)]
pub struct FailedExchanges {
    of_gateway: Mutex<VecDeque<Failure>>,
    of_clients: Mutex<VecDeque<Failure>>,
}

/// One exchange that failed.
#[derive(Clone)]
struct Failure {
    explanation: String,
    advice: &'static str,
    /// The line of the access log, with all fields but the secret ones.
    line: String,
}

impl FailedExchanges {
    /// Keeps a failed exchange instead of the oldest one.
    pub(super) fn keep(&self, record: &ExchangeRecord, end: &End) {
        let failure = Failure { explanation: explanation(record), advice: advice(record), line: describe(record, end) };
        let list = if record.is_failed() { &self.of_gateway } else { &self.of_clients };
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= FAILURES_MAX {
            list.pop_front();
        }
        list.push_back(failure);
    }

    /// The failures of filters, upstreams and the gateway, newest first, then those that clients
    /// caused, as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let list = |list: &Mutex<VecDeque<Failure>>| -> Vec<Failure> {
            list.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
        };
        let entry = |failure: Failure| {
            serde_json::json!({
                "what": failure.explanation,
                "advice": failure.advice,
                "exchange": serde_json::from_str::<serde_json::Value>(&failure.line).unwrap_or_default(),
            })
        };
        let entries = |failures: Vec<Failure>| failures.into_iter().map(entry).collect::<Vec<_>>();
        serde_json::json!({
            "failed": entries(list(&self.of_gateway)),
            "refused": entries(list(&self.of_clients)),
        })
    }
}
