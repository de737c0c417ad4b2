//! What gateways tell each other about the release of a filter.
//!
//! Each gateway judges its own traffic. Shared are decisions that hold for all of them: a version
//! was rolled back, and what operators commanded. This module does not know: how notices travel.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::decision::{Decision, DecisionKind};
use witgate_http::text::bounded;

/// A decision that holds for all gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedDecision {
    /// What was decided about the version.
    pub kind: SharedKind,
    /// The digest of the version.
    pub digest: String,
    /// The digest of the version that serves instead, if it is known.
    pub instead: Option<String>,
    /// The name of the gateway.
    pub gateway: String,
    /// Who decided there.
    pub who: String,
    /// Why.
    pub why: String,
}

/// Decisions that hold for all gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedKind {
    /// The version is out of service.
    RolledBack,
    /// The version serves all exchanges.
    Completed,
    /// The steps are stopped.
    Paused,
    /// The steps go on.
    Resumed,
}

/// What a gateway tells about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GatewayNotice {
    /// `HOST/PROCESS`.
    #[serde(default)]
    pub gateway: String,
    /// `steady`, `releasing`, `paused` or `rolled_back`.
    pub state: String,
    /// The digest of the version in service there.
    pub digest: String,
    /// The step of the release, from 1. 0 if none runs.
    pub step: usize,
    /// The reason for the last decision.
    pub verdict: String,
    /// Unix time in seconds.
    pub at: u64,
}

/// What a gateway knows of the others, and what they do not know yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedState {
    /// The number of the last decision that this gateway knows.
    pub known: u64,
    /// A decision that the store has not taken yet.
    pub pending: Option<SharedDecision>,
}

impl SharedDecision {
    /// The part of a decision that holds for all gateways, if there is one. A release that passed
    /// its steps here has not passed them elsewhere.
    pub fn of(decision: &Decision, gateway: &str, by_operator: bool) -> Option<Self> {
        let kind = match decision.kind {
            DecisionKind::RolledBack => SharedKind::RolledBack,
            DecisionKind::Completed if by_operator => SharedKind::Completed,
            DecisionKind::Paused => SharedKind::Paused,
            DecisionKind::Resumed => SharedKind::Resumed,
            _ => return None,
        };
        let mut why = bounded(&decision.why);
        why.truncate(why.floor_char_boundary(1000));
        Some(Self {
            kind,
            digest: decision.version.digest.clone(),
            instead: decision.other.as_ref().map(|other| other.digest.clone()),
            gateway: gateway.to_owned(),
            who: decision.who.to_string(),
            why,
        })
    }
}
