//! The last exchanges that failed, in memory, so that an operator finds a failure's cause without
//! a log.
//!
//! Failures that clients cause have a list of their own: a client that repeats invalid requests
//! cannot push out the failures of filters and upstreams. Each entry is bounded text.
//! This module does not know: who reads the lists.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use super::access::{ShownExchange, describe};
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

/// The last exchanges that failed, in words.
#[derive(Serialize, ToSchema)]
pub struct ListedFailures {
    /// Failures of filters, upstreams and the gateway, newest first.
    failed: Vec<ListedFailure>,
    /// Failures that clients caused, newest first.
    refused: Vec<ListedFailure>,
}

/// An exchange that failed.
#[derive(Serialize, ToSchema)]
pub(super) struct ListedFailure {
    /// What happened.
    what: String,
    /// What to do.
    advice: &'static str,
    /// The fields of the access log.
    exchange: ShownExchange,
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

    /// All of them, newest first.
    pub fn list(&self) -> ListedFailures {
        let list = |list: &Mutex<VecDeque<Failure>>| -> Vec<Failure> {
            list.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
        };
        let entry = |failure: Failure| ListedFailure {
            what: failure.explanation,
            advice: failure.advice,
            exchange: serde_json::from_str(&failure.line).unwrap_or_default(),
        };
        let entries = |failures: Vec<Failure>| failures.into_iter().map(entry).collect();
        ListedFailures { failed: entries(list(&self.of_gateway)), refused: entries(list(&self.of_clients)) }
    }
}
