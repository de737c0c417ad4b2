//! What gateways tell each other about the release of a filter.
//!
//! Each gateway judges its own traffic. Shared are decisions that hold for all of them: a version
//! was rolled back, and what operators commanded. This module does not know: how notices travel.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::decision::{Decision, DecisionKind};
use crate::state::NOTICE_BYTES_MAX;
use witgate_http::text::bounded;

/// A gateway that wrote nothing for this long is not shown.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Gateways that a page lists.
const GATEWAYS_MAX: usize = 64;

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

/// What an object in a bucket says about one filter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The number of the last decision. 0 if there is none.
    pub number: u64,
    /// The last decision.
    pub decision: Option<SharedDecision>,
    /// The gateways that wrote, the newest first.
    pub gateways: Vec<GatewayNotice>,
}

impl Page {
    /// The page without what is larger than a gateway writes: others may write to the bucket.
    pub fn bounded(self) -> Self {
        let gateways = self.gateways.into_iter().take(GATEWAYS_MAX).filter(is_small);
        Self { number: self.number, decision: self.decision.filter(is_small), gateways: gateways.collect() }
    }

    /// The page with the state of a gateway, and perhaps with its decision. Gateways that wrote
    /// nothing for long are left out.
    pub fn with(&self, notice: &GatewayNotice, decision: Option<&SharedDecision>, now: u64) -> Self {
        let oldest = now.saturating_sub(SILENCE_MAX.as_secs());
        let others = self.gateways.iter().filter(|other| other.gateway != notice.gateway && other.at >= oldest);
        Self {
            number: self.number.saturating_add(u64::from(decision.is_some())),
            decision: decision.or(self.decision.as_ref()).cloned(),
            gateways: std::iter::once(notice).chain(others).take(GATEWAYS_MAX).cloned().collect(),
        }
    }
}

fn is_small<T: Serialize>(value: &T) -> bool {
    serde_json::to_vec(value).is_ok_and(|json| json.len() <= NOTICE_BYTES_MAX)
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
