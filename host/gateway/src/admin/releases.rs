//! `/releases`: the versions of each filter, the release that runs, and commands for it, as JSON.
//!
//! This module does not know: how a release is judged, who may give commands.

use http::StatusCode;
use serde_json::{Value, json};

use super::reply::{Reply, json as reply_json, text};
use crate::control::rollout;
use crate::pipeline::snapshot::Shared;
use crate::releases::board::CommandError;
use crate::releases::entry::{Command, Entry, Running};
use crate::releases::trial::Sums;
use crate::releases::versions::Version;

/// A list with an entry for each filter, sorted by name.
pub(super) fn get(shared: &Shared) -> Reply {
    let releases = rollout::lock(&shared.releases);
    let list: Vec<Value> = releases.entries().iter().map(|(name, entry)| show(name, entry)).collect();
    drop(releases);
    reply_json(&list.into())
}

pub(super) fn promote(shared: &Shared, filter: &str) -> Reply {
    run(shared, filter, Command::Promote)
}

pub(super) fn pause(shared: &Shared, filter: &str) -> Reply {
    run(shared, filter, Command::Pause)
}

pub(super) fn resume(shared: &Shared, filter: &str) -> Reply {
    run(shared, filter, Command::Resume)
}

pub(super) fn roll_back(shared: &Shared, filter: &str) -> Reply {
    run(shared, filter, Command::Rollback)
}

fn run(shared: &Shared, filter: &str, command: Command) -> Reply {
    match rollout::command(shared, filter, command) {
        Ok(decision) => reply_json(&json!({
            "filter": decision.filter,
            "decision": decision.kind.label(),
            "version": decision.version,
            "why": decision.why,
        })),
        Err(error @ CommandError::NoSuchFilter(_)) => text(StatusCode::NOT_FOUND, format!("{error}\n")),
        Err(error @ CommandError::Impossible(_)) => text(StatusCode::CONFLICT, format!("{error}\n")),
    }
}

fn show(name: &str, entry: &Entry) -> Value {
    let running = entry.running.as_ref();
    let quarantined: Vec<Value> = entry
        .quarantined
        .iter()
        .map(|one| json!({"version": one.version.version, "digest": one.version.digest, "why": one.why, "at": one.at}))
        .collect();
    json!({
        "name": name,
        "state": state(entry),
        "version": entry.stable.version,
        "digest": entry.stable.digest,
        "release": running.map(|running| show_running(entry, running)),
        "verdict": entry.verdict,
        "previous": entry.previous.iter().map(show_version).collect::<Vec<_>>(),
        "quarantined": quarantined,
    })
}

fn state(entry: &Entry) -> &'static str {
    match &entry.running {
        Some(running) if running.paused => "paused",
        Some(_) => "releasing",
        None if entry.is_rolled_back() => "rolled_back",
        None => "steady",
    }
}

fn show_running(entry: &Entry, running: &Running) -> Value {
    let release = entry.release.as_ref();
    json!({
        "version": running.version.version,
        "digest": running.version.digest,
        "step": running.step + 1,
        "steps": release.map(|release| release.steps.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "share": running.share().ratio(),
        "hold_seconds": release.map(|release| release.hold.as_secs_f64()),
        "held_for_seconds": running.began.elapsed().as_secs_f64(),
        "old": show_sums(running.old_sums()),
        "new": show_sums(running.trial.new.sums()),
    })
}

fn show_sums(sums: Sums) -> Value {
    json!({
        "requests": sums.requests,
        "failures": sums.failures,
        "mean_milliseconds": sums.mean().map(|mean| mean.as_secs_f64() * 1000.0),
    })
}

fn show_version(version: &Version) -> Value {
    json!({"version": version.version, "digest": version.digest, "in_memory": version.filter.is_some()})
}
