//! `/certificates`: the certificates in service, as JSON. Keys are not shown.
//!
//! This module does not know: how files are read.

use super::reply::{Reply, serialized};
use crate::pipeline::snapshot::Shared;

/// A list with an entry for each certificate of listeners, upstreams and stores.
pub(super) fn get(shared: &Shared) -> Reply {
    serialized(&shared.certificates.get())
}
