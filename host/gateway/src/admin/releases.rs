//! `/releases`: the versions of each filter, the release that runs, and commands for it, as JSON.
//!
//! This module does not know: how a release is judged, who may give commands.

use std::sync::PoisonError;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::call::Call;
use super::query;
use super::reply::{Reply, serialized, text};
use crate::control::rollout;
use crate::pipeline::snapshot::{Shared, StoreView};
use crate::releases::commands::Command;
use crate::releases::entry::{Entry, Quarantined, Running};
use crate::releases::history::ShownSums;
use crate::releases::shadow::{Sample, ShadowCounts, ShadowTraffic};
use crate::releases::shared::GatewayNotice;
use crate::releases::version_registry::CommandError;
use crate::releases::versions::Version;

/// The versions of a filter.
#[derive(Serialize, ToSchema)]
pub(super) struct FilterRelease {
    /// The filter's name.
    name: String,
    /// `steady`, `releasing`, `paused` or `rolled_back`.
    state: &'static str,
    /// The version in service.
    version: String,
    /// Its SHA-256.
    digest: String,
    /// The release that runs.
    release: Option<RunningRelease>,
    /// The reason for the last decision.
    verdict: String,
    /// Earlier versions to which a rollback can go, newest first.
    previous: Vec<EarlierVersion>,
    /// Versions that were rolled back, oldest first.
    quarantined: Vec<QuarantinedVersion>,
    /// What the gateways share. Null: this gateway decides alone.
    shared: Option<SharedView>,
}

/// What gateways share about the release of a filter.
#[derive(Serialize, ToSchema)]
pub(super) struct SharedView {
    /// The name of the store.
    store: String,
    /// Why it does not answer. Then this gateway decides alone, and tells its decision later.
    error: Option<String>,
    /// The gateways that use the store.
    gateways: Vec<GatewayNotice>,
}

/// A release that runs.
#[derive(Serialize, ToSchema)]
pub(super) struct RunningRelease {
    /// The new version.
    version: String,
    /// Its SHA-256.
    digest: String,
    /// The number of its step, from 1.
    step: usize,
    /// The steps.
    steps: Vec<String>,
    /// The new version's share of the exchanges: 0 to 1.
    share: f64,
    /// How long a step lasts at least.
    hold_seconds: Option<f64>,
    /// For how long this one has lasted.
    held_for_seconds: f64,
    /// What the version in service did in this step.
    old: ShownSums,
    /// What the new version did.
    new: ShownSums,
    /// What the shadow found, in the shadow step.
    shadow: Option<ShownShadow>,
}

/// What the shadow found.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownShadow {
    #[serde(flatten)]
    counts: ShadowCounts,
    /// The last exchanges with a difference, newest first.
    samples: Vec<Sample>,
}

/// A version that served before.
#[derive(Serialize, ToSchema)]
pub(super) struct EarlierVersion {
    /// The version of the manifest, `-` without one.
    version: String,
    /// The SHA-256 of the component.
    digest: String,
    /// Whether it is in memory. Otherwise a rollback loads it from disk.
    in_memory: bool,
}

/// A version that was rolled back.
#[derive(Serialize, ToSchema)]
pub(super) struct QuarantinedVersion {
    /// The version of the manifest, `-` without one.
    version: String,
    /// The SHA-256 of the component.
    digest: String,
    /// Why, with the figures that decided.
    why: String,
    /// When, as Unix time in seconds.
    at: u64,
}

/// What a command did.
#[derive(Serialize, ToSchema)]
pub(super) struct CommandResult {
    /// The filter's name.
    filter: String,
    /// What was decided.
    decision: &'static str,
    /// The version that it is about.
    version: String,
    /// Why.
    why: String,
}

/// A list with an entry for each filter, sorted by name.
pub(super) fn get(shared: &Shared) -> Reply {
    let releases = rollout::lock(&shared.releases);
    let mut list: Vec<FilterRelease> = releases.entries().iter().map(|(name, entry)| show(name, entry)).collect();
    drop(releases);
    let views = shared.shared_releases.lock().unwrap_or_else(PoisonError::into_inner);
    for filter in &mut list {
        filter.shared = views.get(&filter.name).map(|StoreView { store, error, gateways }| SharedView {
            store: store.clone(),
            error: error.clone(),
            gateways: gateways.clone(),
        });
    }
    drop(views);
    serialized(&list)
}

pub(super) fn promote(shared: &Shared, call: &Call<'_>) -> Reply {
    run(shared, call, Command::Promote)
}

pub(super) fn pause(shared: &Shared, call: &Call<'_>) -> Reply {
    run(shared, call, Command::Pause)
}

pub(super) fn resume(shared: &Shared, call: &Call<'_>) -> Reply {
    run(shared, call, Command::Resume)
}

/// The query may have `to=VERSION`: an earlier version, or the first digits of its digest.
pub(super) fn roll_back(shared: &Shared, call: &Call<'_>) -> Reply {
    match query::value(call.query, "to").transpose() {
        Ok(None) => run(shared, call, Command::Rollback),
        Ok(Some(to)) => run(shared, call, Command::RollbackTo(to)),
        Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn run(shared: &Shared, call: &Call<'_>, command: Command) -> Reply {
    match rollout::command(shared, call.name, command, call.who.clone()) {
        Ok(decision) => serialized(&CommandResult {
            filter: decision.filter,
            decision: decision.kind.label(),
            version: decision.version.label(),
            why: decision.why,
        }),
        Err(error @ CommandError::NoSuchFilter(_)) => text(StatusCode::NOT_FOUND, format!("{error}\n")),
        Err(error @ CommandError::Impossible(_)) => text(StatusCode::CONFLICT, format!("{error}\n")),
    }
}

fn show(name: &str, entry: &Entry) -> FilterRelease {
    FilterRelease {
        name: name.to_owned(),
        state: entry.state(),
        version: entry.stable.version.clone(),
        digest: entry.stable.digest.clone(),
        release: entry.running.as_ref().map(|running| show_running(entry, running)),
        verdict: entry.verdict.clone(),
        previous: entry.previous.iter().map(show_version).collect(),
        quarantined: entry.quarantined.iter().map(show_quarantined).collect(),
        shared: None,
    }
}

fn show_running(entry: &Entry, running: &Running) -> RunningRelease {
    let release = entry.release.as_ref();
    let figures = running.figures();
    RunningRelease {
        version: running.version.version.clone(),
        digest: running.version.digest.clone(),
        step: running.step + 1,
        steps: release.map(|release| release.all_steps().map(|step| step.to_string()).collect()).unwrap_or_default(),
        share: running.share().ratio(),
        hold_seconds: release.map(|release| release.hold_of(release.all_steps().nth(running.step)).as_secs_f64()),
        held_for_seconds: running.began.elapsed().as_secs_f64(),
        old: figures.old.into(),
        new: figures.new.into(),
        shadow: running.traffic.shadow.as_ref().map(show_shadow),
    }
}

fn show_shadow(shadow: &ShadowTraffic) -> ShownShadow {
    ShownShadow { counts: shadow.counts(), samples: shadow.samples() }
}

fn show_version(version: &Version) -> EarlierVersion {
    EarlierVersion {
        version: version.version.clone(),
        digest: version.digest.clone(),
        in_memory: version.filter.is_some(),
    }
}

fn show_quarantined(one: &Quarantined) -> QuarantinedVersion {
    QuarantinedVersion {
        version: one.version.version.clone(),
        digest: one.version.digest.clone(),
        why: one.why.clone(),
        at: one.at,
    }
}
