//! The performance targets of the project, and whether a run meets them.
//!
//! CPU ratios are of minima and latencies of medians, both within one run on one machine.
//!
//! This module does not know: how anything is measured.

use crate::results::Results;
use crate::transfers::Measure;

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) what: String,
    /// `×`, `µs`, `ms`, `MiB`.
    pub(crate) unit: &'static str,
    pub(crate) measured: Option<f64>,
    pub(crate) limit: f64,
    /// Whether the measured value must be at least the limit, instead of at most.
    pub(crate) at_least: bool,
    /// Why there is no measured value.
    pub(crate) why: String,
}

impl Target {
    /// Measured ÷ limit, or limit ÷ measured with `at_least`. The target is met if it is at most 1.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let measured = self.measured?;
        Some(if self.at_least { self.limit / measured } else { measured / self.limit })
    }
}

/// Returns all targets, in the table's order.
pub(crate) fn targets(results: &Results) -> Vec<Target> {
    let mut all = vec![];
    all.extend(cpu(results));
    all.extend(latency(results));
    all.push(scaling(results));
    all.extend(memory(results));
    all.extend(swaps(results));
    all.extend(reuse(results));
    all.extend(transfers(results));
    all
}

fn at_most(what: impl Into<String>, unit: &'static str, measured: Option<f64>, limit: f64, why: String) -> Target {
    Target { what: what.into(), unit, measured, limit, at_least: false, why }
}

fn cpu(results: &Results) -> Vec<Target> {
    let limits = [
        ("CPU, plain proxy ÷ nginx", "plain", "nginx", 1.3),
        ("CPU, plain proxy ÷ Envoy", "plain", "envoy", 0.45),
        ("CPU, Rust ÷ Envoy + proxy-wasm", "rust", "envoy-wasm", 0.45),
        ("CPU, Rust ÷ nginx + Lua", "rust", "nginx-lua", 2.0),
        ("CPU, TypeScript ÷ Envoy + proxy-wasm", "typescript", "envoy-wasm", 0.7),
        ("CPU, TypeScript ÷ Envoy + Lua", "typescript", "envoy-lua", 0.9),
        ("CPU, TypeScript ÷ Go + Extism, shared instances", "typescript", "extism-shared", 0.4),
        ("CPU, Python ÷ Go + Extism, shared instances", "python", "extism-shared", 1.0),
        ("CPU, Python ÷ Go + Extism, instance per request", "python", "extism-fresh", 0.15),
    ];
    let target = |(what, id, other, limit): (&str, &str, &str, f64)| {
        let missing = if results.cpu(id).is_none() { id } else { other };
        at_most(what, "×", results.ratio(id, other), limit, results.why_missing(missing))
    };
    limits.into_iter().map(target).collect()
}

fn latency(results: &Results) -> Vec<Target> {
    let limits = [("Rust", "rust", 30.0), ("TypeScript", "typescript", 60.0), ("Python", "python", 120.0)];
    let target = |(language, id, limit): (&str, &str, f64)| {
        let over = results.p50(id).zip(results.p50("plain")).map(|(with, plain)| with - plain);
        let what = format!("P50 at 1000 requests/s over the plain proxy, {language}");
        at_most(what, "µs", over, limit, results.why_missing(id))
    };
    limits.into_iter().map(target).collect()
}

fn scaling(results: &Results) -> Target {
    let why = "the measurement failed".to_owned();
    let what = match results.scaling {
        Some(scaling) if scaling.of_requests => "requests/s, TypeScript, two workers ÷ one",
        _ => "calls/s, TypeScript, two threads ÷ one (no HTTP: too few cores)",
    };
    let measured = results.scaling.map(|scaling| scaling.factor);
    Target { what: what.into(), unit: "×", measured, limit: 1.7, at_least: true, why }
}

fn memory(results: &Results) -> Vec<Target> {
    let memory = results.memory;
    let failed = || "the measurement failed".to_owned();
    let grown = results.growth.map(|growth| growth.late / growth.early);
    vec![
        at_most("memory, idle with three filters", "MiB", memory.map(|memory| memory.idle), 60.0, failed()),
        at_most("memory, 500 connections, TypeScript", "MiB", memory.map(|memory| memory.loaded), 200.0, failed()),
        at_most("memory, 30 s after ÷ idle", "×", memory.map(|memory| memory.after / memory.idle), 1.2, failed()),
        at_most("memory, after 100 reloads ÷ after 10", "×", grown, 1.05, "run with `--reloads`".to_owned()),
    ]
}

fn swaps(results: &Results) -> Vec<Target> {
    let mut all = vec![];
    let failed = || "the measurement failed".to_owned();
    for (language, limit) in [("TypeScript", 500.0), ("Python", 5000.0)] {
        let swap = results.swap(language);
        let (cold, cached) = (swap.map(|swap| swap.cold), swap.map(|swap| swap.cached));
        let worse = swap.map(|swap| swap.busy / swap.quiet);
        all.push(at_most(format!("new filter live, cold, {language}"), "ms", cold, limit, failed()));
        all.push(at_most(format!("new filter live, from the cache, {language}"), "ms", cached, 20.0, failed()));
        all.push(at_most(format!("P99 while it compiles ÷ quiet, {language}"), "×", worse, 2.0, failed()));
    }
    all
}

fn reuse(results: &Results) -> Vec<Target> {
    let limits = [("TypeScript", "typescript-reuse"), ("Python", "python-reuse")];
    let target = |(language, id): (&str, &str)| {
        let over = results.cpu(id).zip(results.cpu("plain")).map(|(with, plain)| with - plain);
        at_most(format!("CPU over the plain proxy with `reuse`, {language}"), "µs", over, 25.0, results.why_missing(id))
    };
    limits.into_iter().map(target).collect()
}

fn transfers(results: &Results) -> Vec<Target> {
    let transfers = &results.transfers;
    let limits = [
        ("CPU, download ÷ Envoy", Measure::Download, "envoy", 0.8),
        ("CPU, download over TLS ÷ Envoy", Measure::DownloadTls, "envoy", 1.0),
        ("CPU, upload ÷ Envoy", Measure::Upload, "envoy", 0.8),
        ("CPU, upload over TLS ÷ Envoy", Measure::UploadTls, "envoy", 1.0),
        ("CPU, HTTP/2 ÷ HAProxy", Measure::Http2, "haproxy", 1.0),
        ("CPU, HTTP/2 over TLS ÷ HAProxy", Measure::Http2Tls, "haproxy", 1.0),
        ("CPU, GET of wrk ÷ nginx", Measure::WrkGet, "nginx", 0.95),
        ("CPU, POST of wrk with 1 KB ÷ nginx", Measure::WrkPost, "nginx", 0.95),
    ];
    let target = |(what, measure, other, limit): (&str, Measure, &'static str, f64)| {
        let ratio = transfers.minimum(measure, "witgate").zip(transfers.minimum(measure, other));
        at_most(what, "×", ratio.map(|(own, other)| own / other), limit, "not measured".to_owned())
    };
    let idle = transfers.minimum(Measure::Idle, "witgate");
    let idle = at_most("memory, an idle connection", "KiB", idle, 2.0, "not measured".to_owned());
    limits.into_iter().map(target).chain([idle]).collect()
}
