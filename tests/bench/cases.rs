//! The cases that are compared, including those that this machine cannot run, and their readings.
//!
//! This module does not know: how a gateway starts, how a table looks.

use std::net::SocketAddr;

/// How filter calls are isolated from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// No filter.
    Plain,
    /// The filter runs in the gateway's process or VM, without a sandbox.
    None,
    /// One instance for all requests.
    Shared,
    /// One instance for each request.
    Fresh,
}

impl Sandbox {
    /// The text of a table cell.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Plain => "plain proxy",
            Self::None => "none",
            Self::Shared => "shared",
            Self::Fresh => "fresh per request",
        }
    }
}

/// One row of the comparison.
#[derive(Debug)]
pub(crate) struct Case {
    /// The name that the code and the targets use.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// The gateway: a name of `--peers`, or `witgate`.
    pub(crate) gateway: &'static str,
    pub(crate) sandbox: Sandbox,
}

const fn case(id: &'static str, gateway: &'static str, title: &'static str, sandbox: Sandbox) -> Case {
    Case { id, title, gateway, sandbox }
}

/// All cases. A gateway's case without a filter comes before its other cases.
pub(crate) const CASES: [Case; 20] = [
    case("plain", "witgate", "witgate", Sandbox::Plain),
    case("rust", "witgate", "witgate, Rust", Sandbox::Fresh),
    case("typescript", "witgate", "witgate, TypeScript", Sandbox::Fresh),
    case("python", "witgate", "witgate, Python", Sandbox::Fresh),
    case("typescript-reuse", "witgate", "witgate, TypeScript, `reuse`", Sandbox::Shared),
    case("python-reuse", "witgate", "witgate, Python, `reuse`", Sandbox::Shared),
    case("nginx", "nginx", "nginx", Sandbox::Plain),
    case("nginx-lua", "nginx", "nginx + Lua", Sandbox::None),
    case("haproxy", "haproxy", "HAProxy", Sandbox::Plain),
    case("haproxy-lua", "haproxy", "HAProxy + Lua", Sandbox::None),
    case("envoy", "envoy", "Envoy", Sandbox::Plain),
    case("envoy-lua", "envoy", "Envoy + Lua", Sandbox::None),
    case("envoy-wasm", "envoy", "Envoy + proxy-wasm (Rust)", Sandbox::Shared),
    case("node", "node", "Node (fastify)", Sandbox::Plain),
    case("node-filter", "node", "Node (fastify) + hook", Sandbox::None),
    case("extism", "extism", "Go (net/http)", Sandbox::Plain),
    case("extism-shared", "extism", "Go + Extism", Sandbox::Shared),
    case("extism-fresh", "extism", "Go + Extism, instance per request", Sandbox::Fresh),
    case("typescript-unoptimized", "witgate", "witgate, TypeScript, not optimized", Sandbox::Fresh),
    case("python-unoptimized", "witgate", "witgate, Python, not optimized", Sandbox::Fresh),
];

/// A case whose gateway is running.
#[derive(Debug, Clone)]
pub(crate) struct RunningCase {
    pub(crate) id: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    /// The gateway's process. Its CPU and that of its descendants is measured.
    pub(crate) process: u32,
}

/// The readings of a case, one value for each round.
#[derive(Debug, Default, Clone)]
pub(crate) struct Readings {
    /// CPU per request, µs.
    pub(crate) cpu: Vec<f64>,
    /// Requests per second in the closed loop.
    pub(crate) rate: Vec<f64>,
    /// Median latency in the open loop, µs.
    pub(crate) p50: Vec<f64>,
    /// 99th percentile of latency in the open loop, µs.
    pub(crate) p99: Vec<f64>,
}

/// The median, or `None` without values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 0.5)
}

/// The value below which this share of the values lies, or `None` without values.
pub(crate) fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

/// The smallest value, or `None` without values.
pub(crate) fn minimum(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}
