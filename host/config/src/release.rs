//! `filters.NAME.release`: how a new version of a filter takes over from the one in service.
//!
//! This module does not know: what a version is, who counts its calls.

use std::time::Duration;

use crate::locations::{FilterSource, RemoteKind, RemoteLocation};
use crate::sources::{SourceSettings, Sources};
use crate::values::{HOUR, MILLISECOND, header_name, token};
use crate::yaml::{Section, Value};

const STEPS_MAX: usize = 20;
/// The object of a bucket until the name of its filter is known.
const NEW_OBJECT: &str = "release.json";

/// How a new version takes over, step by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The share of the exchanges that use the new version at each step, ascending, the last one
    /// 100%. Default 1%, 10%, 50%, 100%.
    pub steps: Vec<Share>,
    /// How long each step lasts at least. Default 60 s; 100 ms to 24 h.
    pub hold: Duration,
    /// What makes exchanges use the same version. Default the client's address.
    pub sticky: Sticky,
    /// What the new version must satisfy at each step.
    pub gates: Gates,
    /// What happens if an example that the component carries fails. Default off.
    pub examples: ExamplesGate,
    /// Where gateways share their decisions. Default none: each decides alone.
    pub store: Option<ReleaseStore>,
    /// A step before the first one: the new version serves nothing, and is compared. Default none.
    pub shadow: Option<Shadow>,
}

/// Where gateways share their decisions about a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum ReleaseStore {
    /// An entry of `stores`.
    Shared(String),
    /// An object in a folder of a bucket.
    Bucket(Box<ReleaseBucket>),
}

/// An object for the decisions about one filter.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseBucket {
    /// The folder, and in it an object with the filter's name.
    pub location: RemoteLocation,
    /// The settings of `sources` for this location.
    pub settings: SourceSettings,
}

/// What happens with the examples that a component carries before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExamplesGate {
    /// They are not run.
    Off,
    /// A failure is logged.
    Warn,
    /// A component with a failure, or without examples, is refused.
    Require,
}

/// The step in which the new version gets the input of live calls, without an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow {
    /// The share of the exchanges that are compared. Default 10%.
    pub share: Share,
    /// How long the step lasts at least. Default as `hold` of the release.
    pub hold: Duration,
}

/// One step of a release, in the order in which they pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The new version is compared in a share of the exchanges, and serves none.
    Shadow(Shadow),
    /// The new version serves a share of the exchanges.
    Serve(Share),
}

impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shadow(shadow) => write!(formatter, "shadow {}", shadow.share),
            Self::Serve(share) => write!(formatter, "{share}"),
        }
    }
}

/// A share in hundredths of a percent: 10,000 is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

/// The part of a request that determines its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// `client`: the client's address.
    Client,
    /// `{header: NAME}`.
    Header(http::HeaderName),
    /// `{cookie: NAME}`.
    Cookie(String),
}

/// Bounds on what the new version may do worse than the old one.
#[derive(Debug, Clone, PartialEq)]
pub struct Gates {
    /// How much larger its share of failed requests may be. Default 1%.
    pub errors: Share,
    /// How many times the old version's time per request it may take. Default 2; 1 to 1000.
    pub latency_ratio: f64,
    /// The same for the time that 95% of the calls keep within. Default as `latency_ratio`.
    pub p95_ratio: f64,
    /// In what share of the compared exchanges it may do something else. Default: it may always.
    pub differences: Option<Share>,
    /// How many requests it must have had. Default 100; 1 to 1,000,000.
    pub requests: u64,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self(10_000);

    /// As a number between 0 and 1.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL.0)
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}%", f64::from(self.0) / 100.0)
    }
}

impl Release {
    /// All steps: the shadow, if there is one, and then the shares.
    pub fn all_steps(&self) -> impl Iterator<Item = Step> {
        self.shadow.map(Step::Shadow).into_iter().chain(self.steps.iter().copied().map(Step::Serve))
    }

    /// How long a step lasts at least.
    pub fn hold_of(&self, step: Option<Step>) -> Duration {
        if let Some(Step::Shadow(shadow)) = step { shadow.hold } else { self.hold }
    }

    pub(crate) fn read(section: &Section) -> Self {
        let hold = read_hold(section).unwrap_or(Duration::from_secs(60));
        let shadow = section.optional("shadow", |shadow| Shadow {
            share: shadow.scalar("share", compared_share).unwrap_or(Share(1000)),
            hold: read_hold(shadow).unwrap_or(hold),
        });
        let gates = section.nested("gates", Gates::read);
        if shadow.is_none() && gates.differences.is_some() {
            let message = "has no effect without `shadow`, which finds the differences: add it, or remove this";
            section.error_at(&["gates", "differences"], message);
        }
        Self {
            store: section.scalar("store", ReleaseStore::parse),
            examples: section
                .choice(
                    "examples",
                    &[("off", ExamplesGate::Off), ("warn", ExamplesGate::Warn), ("require", ExamplesGate::Require)],
                    "write off, warn or require",
                )
                .unwrap_or(ExamplesGate::Off),
            shadow,
            steps: read_steps(section),
            hold,
            sticky: Sticky::read(section).unwrap_or(Sticky::Client),
            gates,
        }
    }
}

impl ReleaseStore {
    /// The name of an entry of `stores`, or a folder such as `s3://filters/releases/`.
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::Shared(text.to_owned()));
        }
        let location = RemoteLocation::parse(&format!("{}/{NEW_OBJECT}", text.trim_end_matches('/')));
        match location {
            Ok(location) if matches!(location.kind, RemoteKind::Bucket(_)) => {
                Ok(Self::Bucket(Box::new(ReleaseBucket { location, settings: SourceSettings::default() })))
            }
            _ => {
                Err("write the name of an entry of `stores`, or a folder in a bucket such as s3://filters/releases/"
                    .into())
            }
        }
    }

    /// The name of an entry of `stores`.
    pub fn shared(&self) -> Option<&str> {
        match self {
            Self::Shared(name) => Some(name),
            Self::Bucket(_) => None,
        }
    }

    /// The object in a bucket.
    pub fn bucket(&self) -> Option<&ReleaseBucket> {
        match self {
            Self::Shared(_) => None,
            Self::Bucket(bucket) => Some(bucket),
        }
    }

    /// Gives a bucket's object the name of its filter, and the settings of its location.
    pub(crate) fn resolve(&mut self, filter: &str, sources: &Sources) {
        let Self::Bucket(bucket) = self else { return };
        let folder = bucket.location.text.trim_end_matches(NEW_OBJECT);
        if let Ok(location) = RemoteLocation::parse(&format!("{folder}{filter}.release.json")) {
            bucket.settings = sources.of(&FilterSource::Remote(location.clone()));
            bucket.location = location;
        }
    }
}

fn read_hold(section: &Section) -> Option<Duration> {
    section.duration("hold", 100 * MILLISECOND, 24 * HOUR)
}

impl Gates {
    fn read(section: &Section) -> Self {
        let latency_ratio = section.scalar("latency_ratio", ratio).unwrap_or(2.0);
        Self {
            errors: section.scalar("errors", percent).unwrap_or(Share(100)),
            latency_ratio,
            p95_ratio: section.scalar("p95_ratio", ratio).unwrap_or(latency_ratio),
            differences: section.scalar("differences", percent),
            requests: section.number("requests", 1, 1_000_000).unwrap_or(100),
        }
    }
}

fn read_steps(section: &Section) -> Vec<Share> {
    let Some(node) = section.get("steps") else {
        return vec![Share(100), Share(1000), Share(5000), Share::ALL];
    };
    let steps = section.list("steps", percent);
    let is_ascending = steps.windows(2).all(|pair| pair[0] < pair[1]);
    if steps.first().is_some_and(|first| first.0 == 0) || !is_ascending || steps.len() > STEPS_MAX {
        let message = format!("write 1 to {STEPS_MAX} shares above 0%, each larger than the one before");
        section.error(node.line, "steps", message);
    } else if steps.last() != Some(&Share::ALL) {
        section.error(node.line, "steps", "the last step is 100%: add it");
    }
    steps
}

impl Sticky {
    fn read(release: &Section) -> Option<Self> {
        const ADVICE: &str = "write client, {header: NAME} or {cookie: NAME}";
        if !matches!(release.get("sticky")?.value, Value::Map(_)) {
            return release.choice("sticky", &[("client", Self::Client)], ADVICE);
        }
        release.nested("sticky", |section| {
            let header = section.scalar("header", |text| header_name(text).map(Self::Header));
            let cookie = section.scalar("cookie", |text| token(text).map(Self::Cookie));
            if section.has("header") == section.has("cookie") {
                section.error(section.line(), "header", "give either header or cookie");
            }
            header.or(cookie)
        })
    }
}

/// A share such as `1%` or `0.5%`.
fn percent(text: &str) -> Result<Share, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(Share((percent * 100.0).round() as u32)),
        _ => Err("write a share between 0% and 100%, such as 1% or 0.5%".into()),
    }
}

/// Without exchanges to compare, the shadow step would never end.
fn compared_share(text: &str) -> Result<Share, String> {
    let nothing = || Err("nothing would be compared: write a share above 0%, or remove `shadow`".into());
    percent(text).and_then(|share| if share.0 == 0 { nothing() } else { Ok(share) })
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (1.0..=1000.0).contains(ratio));
    ratio.ok_or_else(|| "write a number between 1 and 1000, such as 2.0".into())
}
