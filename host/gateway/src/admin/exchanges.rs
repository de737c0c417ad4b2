//! `/exchanges?failed`: the last exchanges that failed, each with an explanation, as JSON.
//!
//! Successful exchanges are not kept, so the query may be left out. This module does not know: how
//! an exchange fails.

use super::reply::{Reply, serialized};
use crate::pipeline::snapshot::Shared;

/// The failures of filters, upstreams and the gateway (`failed`), and those that clients caused
/// (`refused`), newest first.
pub(super) fn get(shared: &Shared) -> Reply {
    serialized(&shared.telemetry.failures.list())
}
