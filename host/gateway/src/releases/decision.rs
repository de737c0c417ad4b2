//! What was decided about a release, for the log, the metrics and the operator.
//!
//! This module does not know: how it is decided.

use witgate_config::Share;

/// A decision about a filter's version.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The filter's name in gateway.yaml.
    pub filter: String,
    /// What was decided.
    pub kind: DecisionKind,
    /// The version that it is about.
    pub version: String,
    /// That version's share of the exchanges from here on.
    pub share: Share,
    /// Why, in words.
    pub why: String,
}

/// Kinds of decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionKind {
    /// A new version gets its first share of the exchanges.
    Started,
    /// The next step.
    Advanced,
    /// The step goes on, because the new version is too slow or had too few requests.
    Held,
    /// The new version serves all exchanges.
    Completed,
    /// The version went out of service and is quarantined.
    RolledBack,
    /// A quarantined version was loaded and not put into service.
    Quarantined,
    /// An operator stopped the steps.
    Paused,
    /// An operator let the steps go on.
    Resumed,
    /// The release ended because the file has the old version again.
    Cancelled,
}

impl DecisionKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Started,
        Self::Advanced,
        Self::Held,
        Self::Completed,
        Self::RolledBack,
        Self::Quarantined,
        Self::Paused,
        Self::Resumed,
        Self::Cancelled,
    ];

    /// The label in metrics, and the word in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Advanced => "advanced",
            Self::Held => "held",
            Self::Completed => "completed",
            Self::RolledBack => "rolled_back",
            Self::Quarantined => "quarantined",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it changes which version serves which exchanges, or begins to count anew.
    pub const fn changes_service(self) -> bool {
        !matches!(self, Self::Quarantined | Self::Paused)
    }

    /// Whether an operator should look.
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::RolledBack | Self::Quarantined)
    }
}
