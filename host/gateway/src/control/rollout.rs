//! Puts versions of filters into service: loaded ones, the steps of releases, operators' commands.
//!
//! The lock of `Shared::releases` is held from a decision to the swap of the snapshot, so that no
//! swap undoes another. It is never held during a compilation: a command takes effect while a
//! filter compiles. This module does not know: how a step is judged, who gives a command.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::pipeline::snapshot::{Filters, Shared, Snapshot, UpstreamParts};
use crate::releases::commands::Command;
use crate::releases::decision::{Decision, DecisionKind, Who};
use crate::releases::loader::Loader;
use crate::releases::shared::SharedDecision;
use crate::releases::version_registry::{CommandError, Entries, Releases};
use crate::state::RouteLimiters;
use crate::telemetry::{FilterLabels, FilterNameLabels, Metrics, ReleaseDecisionLabels, ReloadLabels};
use witgate_config::Config;
use witgate_runtime::filter::Filter;

/// How often steps are judged while a release runs.
const JUDGE_INTERVAL: Duration = Duration::from_millis(50);

/// What a reload puts into service.
pub(super) struct Loaded<'a> {
    /// The configuration.
    pub(super) config: Arc<Config>,
    /// The filters that were loaded. The others stay as they are.
    pub(super) filters: &'a Filters,
    /// The rate limiters of the routes.
    pub(super) route_limiters: RouteLimiters,
    /// TLS and components of the upstreams.
    pub(super) upstream_parts: UpstreamParts,
    /// Whether the configuration is a new one.
    pub(super) is_new_config: bool,
}

/// Puts what a reload loaded into service. A filter with `release` begins to take over.
///
/// # Errors
/// The parts do not fit together; nothing changed.
pub(super) fn publish(shared: &Shared, loader: &Loader, loaded: Loaded<'_>) -> Result<(), String> {
    let Loaded { config, filters, route_limiters, upstream_parts, is_new_config } = loaded;
    let mut releases = lock(&shared.releases);
    let before = releases.entries().clone();
    let decisions = releases.admit(&config, filters, |name| loader.content(name), is_new_config);
    match new_snapshot(shared, &releases, config, (route_limiters, upstream_parts)) {
        Ok(snapshot) => {
            shared.metrics.reloads.get_or_create(&ReloadLabels { result: "applied" }).inc();
            swap(shared, &mut releases, snapshot, &decisions);
            Ok(())
        }
        Err(why) => {
            releases.restore(before);
            Err(why)
        }
    }
}

/// Carries out an operator's command. It is in effect when this returns.
///
/// # Errors
/// Why it has no effect.
pub fn command(shared: &Shared, filter: &str, command: Command, who: Who) -> Result<Decision, CommandError> {
    let mut releases = lock(&shared.releases);
    let before = releases.entries().clone();
    let decision = releases.command(filter, command, who)?;
    apply(shared, &mut releases, before, std::slice::from_ref(&decision)).map_err(CommandError::Impossible)?;
    Ok(decision)
}

/// Notes what the decision store of a filter has, and follows a decision of another gateway.
pub(super) fn hear(shared: &Shared, filter: &str, number: u64, taken: bool, decision: Option<SharedDecision>) {
    let mut releases = lock(&shared.releases);
    let before = releases.entries().clone();
    let decisions = releases.hear(filter, number, taken, decision.as_ref(), &shared.gateway_name);
    if decisions.is_empty() {
        return;
    }
    if let Err(why) = apply(shared, &mut releases, before, &decisions) {
        tracing::error!(why, "the decision of another gateway has no effect here");
    }
}

/// Judges the steps of releases until the gateway drains.
pub(super) async fn judge_releases(shared: Arc<Shared>) {
    let (mut swapped, mut draining) = (shared.swapped.subscribe(), shared.draining.subscribe());
    loop {
        let is_active = lock(&shared.releases).is_active();
        tokio::select! {
            () = wait_drain(&mut draining) => return,
            () = tokio::time::sleep(JUDGE_INTERVAL), if is_active => judge(&shared),
            _ = swapped.changed() => {}
        }
    }
}

/// Waits until the gateway drains.
pub(super) async fn wait_drain(draining: &mut watch::Receiver<bool>) {
    // An error is impossible: `Shared` keeps the sender.
    let _ = draining.wait_for(|is_draining| *is_draining).await;
}

fn judge(shared: &Shared) {
    let mut releases = lock(&shared.releases);
    let before = releases.entries().clone();
    let decisions = releases.tick(Instant::now());
    if decisions.is_empty() {
        return;
    }
    if let Err(why) = apply(shared, &mut releases, before, &decisions) {
        tracing::error!(why, "a release stays at its step");
    }
}

/// Puts decisions into effect, or takes them back.
fn apply(shared: &Shared, releases: &mut Releases, before: Entries, decisions: &[Decision]) -> Result<(), String> {
    if decisions.iter().any(|decision| decision.kind.changes_service()) {
        let current = shared.snapshot.load_full();
        let services = (current.route_limiters.clone(), current.upstream_parts.clone());
        match new_snapshot(shared, releases, current.config.clone(), services) {
            Ok(snapshot) => swap(shared, releases, snapshot, decisions),
            Err(why) => {
                releases.restore(before);
                return Err(why);
            }
        }
    } else {
        report(&shared.metrics, decisions);
        releases.save(decisions, &shared.gateway_name);
    }
    Ok(())
}

fn new_snapshot(
    shared: &Shared,
    releases: &Releases,
    config: Arc<Config>,
    (route_limiters, upstream_parts): (RouteLimiters, UpstreamParts),
) -> Result<Snapshot, String> {
    let loaded = (releases.in_service(), releases.canaries(), route_limiters);
    Snapshot::new(config, loaded, upstream_parts, &shared.registry, &shared.metrics, (&shared.held, &shared.key_caches))
}

/// The metrics come first: an observer of the new state must find it counted. The record on disk
/// comes last, because nothing waits for it.
fn swap(shared: &Shared, releases: &mut Releases, snapshot: Snapshot, decisions: &[Decision]) {
    publish_filters(&shared.metrics, &snapshot);
    publish_steps(&shared.metrics, releases);
    report(&shared.metrics, decisions);
    shared.reloads.serve(snapshot.served_filters());
    shared.swap(snapshot);
    releases.save(decisions, &shared.gateway_name);
}

/// Sets the metric of the loaded filters.
pub fn publish_filters(metrics: &Metrics, snapshot: &Snapshot) {
    metrics.filters.clear();
    let canaries = snapshot.canaries.iter().map(|(name, canary)| (name, &canary.filter));
    for (name, filter) in snapshot.filters.iter().chain(canaries) {
        metrics.filters.get_or_create(&filter_labels(name, filter)).set(1);
    }
}

/// The labels of a loaded filter.
pub(crate) fn filter_labels(name: &str, filter: &Filter) -> FilterLabels {
    FilterLabels { filter: name.into(), version: filter.version.clone(), digest: filter.short_digest.clone() }
}

/// Sets the metrics of releases.
pub fn publish_steps(metrics: &Metrics, releases: &Releases) {
    metrics.release_step.clear();
    metrics.release_share.clear();
    for (name, entry) in releases.entries().iter().filter(|(_, entry)| entry.release.is_some()) {
        let labels = FilterNameLabels { filter: name.as_str().into() };
        let running = entry.running.as_ref();
        metrics.release_step.get_or_create(&labels).set(running.map_or(0, |running| running.step as i64 + 1));
        metrics.release_share.get_or_create(&labels).set(running.map_or(0.0, |running| running.share().ratio()));
    }
}

/// Counts and logs decisions.
pub fn report(metrics: &Metrics, decisions: &[Decision]) {
    for Decision { filter, kind, version, share, why, .. } in decisions.iter().filter(|one| one.kind.is_of_release()) {
        let version = version.label();
        let labels = ReleaseDecisionLabels { filter: filter.as_str().into(), decision: kind.label() };
        metrics.release_decisions.get_or_create(&labels).inc();
        let (decision, share) = (kind.label(), share.to_string());
        if kind.is_bad() {
            tracing::warn!(filter, decision, version, share, why, "release: {}", sentence(*kind));
        } else {
            tracing::info!(filter, decision, version, share, why, "release: {}", sentence(*kind));
        }
    }
}

fn sentence(kind: DecisionKind) -> &'static str {
    match kind {
        DecisionKind::First | DecisionKind::Replaced => "the version serves all exchanges immediately",
        DecisionKind::Started => "the release of a new version begins",
        DecisionKind::Advanced => "the new version serves a larger share",
        DecisionKind::Held => "the new version stays at its step",
        DecisionKind::Completed => "the version serves all exchanges",
        DecisionKind::RolledBack => "the version is out of service and quarantined",
        DecisionKind::Quarantined => "a quarantined version is not put into service",
        DecisionKind::Paused => "the steps are stopped",
        DecisionKind::Resumed => "the steps go on",
        DecisionKind::Cancelled => "the new version is out of service",
    }
}

/// The lock of the releases. Its holder must not wait for anything.
pub fn lock(releases: &Mutex<Releases>) -> MutexGuard<'_, Releases> {
    releases.lock().unwrap_or_else(PoisonError::into_inner)
}
