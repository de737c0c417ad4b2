//! `/role`: what the caller may do, so that a page can leave out what it may not.
//!
//! This module does not know: how a role is proven.

use serde::Serialize;
use utoipa::ToSchema;

use super::access::Actor;
use super::reply::{Reply, serialized};

/// What the caller may do.
#[derive(Serialize, ToSchema)]
pub(super) struct Role {
    /// What proves it: `admin.token`, `admin.read_token`, `admin.clients.change`,
    /// `admin.clients.read`, `admin.socket` or `loopback`.
    who: &'static str,
    /// Whether it may give commands.
    may_change: bool,
}

/// The caller's role.
pub(super) fn get(actor: Actor, may_change: bool) -> Reply {
    serialized(&Role { who: actor.label(), may_change })
}
