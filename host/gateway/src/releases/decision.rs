//! What was decided about a release, for the log, the metrics, the history and the operator.
//!
//! This module does not know: how it is decided.

use std::fmt;

use super::step_traffic::Sums;
use super::versions::Version;
use witgate_config::Share;

/// A decision about a filter's version.
#[derive(Clone)]
pub struct Decision {
    /// The filter's name in gateway.yaml.
    pub filter: String,
    /// What was decided.
    pub kind: DecisionKind,
    /// The version that it is about.
    pub version: Version,
    /// The version that serves the rest of the exchanges, or that served before.
    pub other: Option<Version>,
    /// That version's share of the exchanges from here on.
    pub share: Share,
    /// The reason for the decision.
    pub why: String,
    /// What both versions had done in the step, if a step was judged.
    pub figures: Option<Comparison>,
    /// Who decided.
    pub who: Who,
}

/// What both versions did in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// The version in service.
    pub old: Sums,
    /// The version that is released.
    pub new: Sums,
}

/// Who decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The gates of the release.
    Gates,
    /// Whoever changed the filter's source or the configuration.
    Source,
    /// Another gateway: its name, and who decided there.
    Gateway {
        /// The name of the gateway.
        name: String,
        /// Who decided there.
        who: String,
    },
    /// An operator, by the admin listener.
    Operator {
        /// How the operator proved who it is: `admin.token` or `loopback`.
        role: &'static str,
        /// The address of the operator.
        from: String,
    },
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gates => formatter.write_str("gates"),
            Self::Source => formatter.write_str("source"),
            Self::Gateway { name, who } => write!(formatter, "gateway {name}: {who}"),
            Self::Operator { role, from } => write!(formatter, "operator ({role}, {from})"),
        }
    }
}

/// Kinds of decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionKind {
    /// The first version of a filter serves all exchanges.
    First,
    /// A version serves all exchanges immediately, because the filter has no `release`.
    Replaced,
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
            Self::First => "first",
            Self::Replaced => "replaced",
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

    /// Whether it belongs to a release with steps. Others are reported as reloads.
    pub const fn is_of_release(self) -> bool {
        !matches!(self, Self::First | Self::Replaced)
    }
}
