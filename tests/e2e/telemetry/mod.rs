//! What an operator sees of an exchange: ids, the access log, the last failures, traces, metrics.

mod access_log;
mod failures;
mod ids;
mod metrics;
mod runtime;
mod traces;
