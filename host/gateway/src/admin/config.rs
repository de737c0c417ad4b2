//! `/config`: the configuration in service: from where, since when, as it is written, and the
//! values that it has where nothing is written. Secrets are masked.
//!
//! This module does not know: how the configuration is read.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::reply::{Reply, serialized};
use crate::pipeline::snapshot::Shared;
use witgate_config::{Config, Filter, Upstream};

/// The configuration in service.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownConfig {
    /// The file, as the command line names it.
    file: String,
    /// The SHA-256 of the file's content.
    sha256: String,
    /// Since when it is in service, as Unix time in seconds.
    loaded_at: Option<u64>,
    /// Why the last reload was refused. Null if it was applied.
    refused: Option<RefusedConfig>,
    /// What can work but is probably not meant, a line for each.
    warnings: Vec<String>,
    /// The keys as they are written. Secrets are masked, and references are shown as references.
    written: Value,
    /// The values in effect, those that are not written among them. Times are in seconds.
    effective: Value,
}

/// A reload that was refused.
#[derive(Serialize, ToSchema)]
pub(super) struct RefusedConfig {
    /// When, as Unix time in seconds.
    at: u64,
    /// Why.
    reason: String,
}

/// The configuration in service.
pub(super) fn get(shared: &Shared) -> Reply {
    let config = shared.snapshot.load().config.clone();
    let reload = shared.reloads.get().config;
    let refused = reload.as_ref().and_then(|reload| reload.refused.as_ref());
    serialized(&ShownConfig {
        file: config.file.clone(),
        sha256: config.sha256.clone(),
        loaded_at: reload.as_ref().map(|reload| unix_seconds(reload.serving_since)),
        refused: refused.map(|refused| RefusedConfig { at: unix_seconds(refused.at), reason: refused.reason.clone() }),
        warnings: config.warnings.iter().map(ToString::to_string).collect(),
        written: config.written.clone(),
        effective: effective(&config),
    })
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn effective(config: &Config) -> Value {
    let (timeouts, limits, compile) = (&config.timeouts, &config.limits, &config.compile);
    let listeners = config.listeners.iter().map(|one| (one.name.clone(), one.address.to_string().into()));
    serde_json::json!({
        "workers": config.workers,
        "listeners": listeners.collect::<serde_json::Map<_, Value>>(),
        "admin": config.admin.address.map(|address| address.to_string()),
        "admin_socket": config.admin.socket.as_ref().map(|path| path.display().to_string()),
        "state": config.state_dir.display().to_string(),
        "timeouts": {
            "filters": seconds(timeouts.filters),
            "request_head": seconds(timeouts.request_head),
            "request_body": seconds(timeouts.request_body),
            "idle": seconds(timeouts.idle),
            "send": seconds(timeouts.send),
            "tunnel_idle": seconds(timeouts.tunnel_idle),
            "drain": seconds(timeouts.drain),
            "drain_delay": seconds(timeouts.drain_delay),
        },
        "limits": {
            "in_flight": limits.in_flight,
            "connections": limits.connections,
            "request_head": limits.request_head_bytes,
            "request_fields": limits.request_fields,
            "request_body": limits.request_body_bytes,
            "streams": limits.streams,
            "connections_per_client": limits.connections_per_client,
            "in_flight_per_client": limits.in_flight_per_client,
            "min_bytes_per_second": limits.min_bytes_per_second,
            "buffered": limits.buffered_bytes,
            "buffered_per_client": limits.buffered_bytes_per_client,
        },
        "compile": {
            "memory": compile.memory_bytes,
            "time": seconds(compile.time),
            "functions": compile.functions,
            "function": compile.function_bytes,
        },
        "reload": { "watch": config.reload.watch, "interval": config.reload.interval.map(seconds) },
        "filters": config.filters.iter().map(|(name, one)| (name.clone(), filter(one))).collect::<serde_json::Map<_, _>>(),
        "upstreams": config.upstreams.iter().map(|(name, one)| (name.clone(), upstream(one))).collect::<serde_json::Map<_, _>>(),
    })
}

fn filter(filter: &Filter) -> Value {
    let release = filter.release.as_ref().map(|release| {
        serde_json::json!({
            "steps": release.all_steps().map(|step| step.to_string()).collect::<Vec<_>>(),
            "hold": seconds(release.hold),
            "errors": release.gates.errors.ratio(),
            "latency_ratio": release.gates.latency_ratio,
            "p95_ratio": release.gates.p95_ratio,
            "differences": release.gates.differences.map(|share| share.ratio()),
            "requests": release.gates.requests,
        })
    });
    serde_json::json!({
        "timeout": seconds(filter.timeout),
        "memory": filter.memory_bytes,
        "body": filter.body_bytes,
        "concurrency": filter.concurrency,
        "reuse": filter.reuse,
        "release": release,
    })
}

fn upstream(upstream: &Upstream) -> Value {
    serde_json::json!({
        "connect_timeout": seconds(upstream.connect_timeout),
        "timeout": seconds(upstream.timeout),
        "body_idle_timeout": upstream.body_idle_timeout.map(seconds),
        "total_timeout": upstream.total_timeout.map(seconds),
        "response_head": upstream.response_head_bytes,
        "idle_connections": upstream.idle_connections,
        "idle_timeout": seconds(upstream.idle_timeout),
        "connections": upstream.limits.connections,
        "in_flight": upstream.limits.in_flight,
        "pending": upstream.limits.pending,
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
