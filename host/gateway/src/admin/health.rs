//! `/healthz` and `/readyz`: whether the process runs, and whether it accepts new connections.
//!
//! This module does not know: the health of upstreams, which `/upstreams` shows.

use std::sync::atomic::Ordering::Relaxed;

use http::StatusCode;

use super::reply::{Reply, text};
use crate::pipeline::snapshot::Shared;

/// Always 200.
pub(super) fn get_liveness(_: &Shared) -> Reply {
    text(StatusCode::OK, "ok\n")
}

/// 200, or 503 while the gateway drains or is about to.
pub(super) fn get_readiness(shared: &Shared) -> Reply {
    if *shared.draining.borrow() || shared.leaving.load(Relaxed) {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    text(StatusCode::OK, "ready\n")
}
