//! What gateway.yaml says, as checked types: whoever holds a [`Config`] need not check anything again.
//!
//! Text → tree with lines (`config/tree.rs`) → sections, key by key (`config/sections.rs`, `upstream.rs`, `route.rs`, `policy.rs`, `conditions.rs`, with the readers of `config/read.rs`) → rules between sections
//! (`config/rules.rs`). Every error is collected with its path and line before anything is refused. Text in, values out: no file, clock or
//! socket is touched here, so that a check is the same on every machine. Must not know: wasmtime, hyper.

mod conditions;
mod policy;
mod read;
mod route;
mod rules;
mod sections;
#[cfg(test)]
mod tests;
mod tls;
mod tree;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use conditions::{Match, PathMatch, Pattern, ValueMatch};
pub use policy::{
    Compression, Cors, Encoding, Mirror, Origin, PathRewrite, Redirect, RedirectPath, DirectResponse, Rewrite, RouteLimits,
};
pub use route::{Action, Route, RouteFilter, WeightedUpstream};
pub use tls::{Alpn, CertificateFiles, ClientAuth, ListenerTls, TlsVersion, UpstreamTls};
pub use upstream::{
    Balance, EndpointAddress, HashKey, HealthCheck, EndpointConfig, OutlierDetection, Protocol, Retries, UpstreamTarget, Upstream, UpstreamLimits,
};

/// A whole, consistent configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Threads that serve traffic, each with its own runtime, listeners and pools. 1 to 256; default: the cores.
    pub workers: usize,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Deadlines of the gateway's own side.
    pub timeouts: Timeouts,
    /// Bounds on what clients can make grow.
    pub limits: Limits,
    /// Where metrics, health and readiness are served; none switches it off. Default 127.0.0.1:9901.
    pub admin: Option<SocketAddr>,
    /// Where compiled filters are kept. Relative to the config file's folder.
    pub state_dir: PathBuf,
    /// Bounds of compiling a filter.
    pub compile: CompileLimits,
    /// How changes of files are noticed.
    pub reload: Reload,
    /// By name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// By name.
    pub filters: BTreeMap<String, Filter>,
    /// In the order written; the most specific match wins, then the first.
    pub routes: Vec<Route>,
    /// Networks whose word for a client's address counts (`x-forwarded-for`, `forwarded`). Default none.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// The gateway's own log.
    pub log: Log,
}

impl Config {
    /// Checks the text of a gateway.yaml. `file` is its name for messages; relative paths in it are relative to `base`.
    pub fn parse(text: &str, file: &str, base: &Path) -> Result<Self, ConfigErrors> {
        let fail = |mut errors: Vec<ConfigError>| {
            errors.sort_by_key(|error| error.line);
            ConfigErrors { file: file.to_owned(), errors }
        };
        let root = tree::parse(text).map_err(|error| fail(vec![error]))?;
        let errors = read::Errors::default();
        let mut config = sections::config(&root, base, &errors);
        let mut errors = errors.into_inner();
        rules::check(&mut config, &root, &mut errors);
        if errors.is_empty() { Ok(config) } else { Err(fail(errors)) }
    }

    /// Every file with certificates or keys.
    pub fn certificate_files(&self) -> impl Iterator<Item = &Path> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(ListenerTls::files);
        listeners
            .chain(self.upstreams.values().filter_map(|upstream| upstream.tls.as_ref()).flat_map(UpstreamTls::files))
    }
}

/// Everything that is wrong with a file: at least one error, sorted by line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name.
    pub file: String,
    /// Sorted by line.
    pub errors: Vec<ConfigError>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// From 1.
    pub line: usize,
    /// `filters.api-key.timeout`; empty where YAML itself is at fault.
    pub path: String,
    /// The value, why it cannot be, and what to do.
    pub message: String,
}

impl ConfigError {
    fn new(line: usize, path: &str, message: impl Into<String>) -> Self {
        Self { line: line.max(1), path: path.to_owned(), message: message.into() }
    }
}

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            let colon = if error.path.is_empty() { "" } else { ": " };
            write!(formatter, "{}:{}: {}{colon}{}", self.file, error.line, error.path, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A socket that accepts clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// For logs and metrics; default `main`.
    pub name: String,
    /// Port 0 lets the system choose.
    pub address: SocketAddr,
    /// Whether every connection begins with a PROXY header (version 1 or 2). Default false.
    pub proxy_protocol: bool,
    /// None for plain text.
    pub tls: Option<ListenerTls>,
}

/// Deadlines of the gateway's own side. None may be 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// The budget of all filter calls of one phase of one exchange. Default 500 ms. Above every filter's timeout, below
    /// every upstream's.
    pub filters: Duration,
    /// To receive a request's head. Default 10 s.
    pub request_head: Duration,
    /// To receive a request's body where a filter wants it whole; where it is passed on as it comes, for its next byte. Default 30 s.
    pub request_body: Duration,
    /// A connection without a request. Default 60 s.
    pub idle: Duration,
    /// How long a client may take no byte of a response. Default 30 s.
    pub send: Duration,
    /// How long a tunnel (WebSocket and other upgrades) may be silent in both directions. Default 10 min.
    pub tunnel_idle: Duration,
    /// How long a drain waits for exchanges in flight. Default 30 s.
    pub drain: Duration,
}

/// Bounds on what clients can make grow.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Exchanges at once, over all threads; above it 503. Default 1024; 1 to 1,000,000.
    pub in_flight: usize,
    /// Client connections at once, over all threads; above it a connection waits in the kernel's queue. Default 10,000.
    pub connections: usize,
    /// Bytes of a request's head. Default 64 KiB; 8 KiB to 1 MiB.
    pub request_head_bytes: usize,
    /// Header lines of a request. Default 100; 16 to 1000.
    pub request_fields: usize,
    /// Bytes of a request's body. Default 1 GiB; 1 B to 1 TiB.
    pub request_body_bytes: u64,
    /// Requests at once on one HTTP/2 connection. Default 128; 1 to 10,000.
    pub streams: u32,
    /// Connections at once from one IP address; 0 for no bound of its own. Default 0; above it a connection is closed.
    pub connections_per_client: usize,
    /// The average rate of a body in either direction, in bytes a second, below which a client is cut once it had 5 s of waiting; 0 for none. Default 240.
    pub min_bytes_per_second: u32,
    /// Bytes of a body that the gateway holds in memory for filters, over all exchanges. Default 256 MiB.
    pub buffered_bytes: usize,
}

/// Bounds of compiling a filter: what a component can cost before it serves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompileLimits {
    /// Address space of the compiling process in bytes. Default 2 GiB; 128 MiB to 64 GiB.
    pub memory_bytes: u64,
    /// Processor time of the compiling process; four times as long on the wall clock. Default 120 s; 1 s to 1 h.
    pub time: Duration,
    /// Functions of a component. Default 50,000; 1 to 1,000,000.
    pub functions: usize,
    /// Bytes of one function's body. Default 1 MiB; 1 KiB to 64 MiB.
    pub function_bytes: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, time: Duration::from_secs(120), functions: 50_000, function_bytes: 1 << 20 }
    }
}

/// How changes of files are noticed. SIGHUP always works.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// Watch the files' folders. Default true.
    pub watch: bool,
    /// Look at the files this often even so. Default 30 s (the article's); none switches it off (`interval: off`).
    pub interval: Option<Duration>,
}

/// A component and what it may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The .wasm file. Relative to the config file's folder.
    pub source: PathBuf,
    /// The version that the component's manifest must have.
    pub version: Option<String>,
    /// The SHA-256 that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// For one call. Default 100 ms; at least 1 ms; below the budget, at most half of the timeout of every upstream that it is used with.
    pub timeout: Duration,
    /// Linear memory of one instance in bytes. Default 64 MiB; 64 KiB to 256 MiB.
    pub memory_bytes: usize,
    /// What a failure does to the exchange. Default closed.
    pub on_error: OnError,
    /// How many calls an instance serves, one after the other. Default 1, a fresh one for each; up to 1,000,000.
    pub reuse: u32,
    /// What it may import beyond the base world.
    pub capabilities: Vec<Capability>,
    /// Keys of its `config`, strings as they are, other values as JSON text.
    pub config: BTreeMap<String, String>,
    /// Bounds of its key-value store.
    pub keyvalue: KeyValue,
}

/// Bounds of a filter's share of the key-value store.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyValue {
    /// Default 100,000; 1 to 10,000,000.
    pub keys: usize,
    /// Keys and values together. Default 64 MiB; 1 KiB to 4 GiB.
    pub bytes: usize,
}

/// What a filter may import beyond the base world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// `keyvalue`: the `witgate:gateway/keyvalue` interface.
    KeyValue,
    /// `wasi`: WASI 0.2 without files, sockets, environment and arguments: clocks, random and standard streams that go nowhere.
    Wasi,
}

/// What a filter's failure does to the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The exchange fails: 502, for a missed deadline 504.
    Closed,
    /// The exchange goes on as if the filter were not there.
    Open,
}

/// The gateway's own log.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A `tracing` filter such as `info` or `witgate=debug`. Default `info`.
    pub level: String,
    /// One JSON object a line (`json`), or for people (`text`). Default: text on a terminal, else JSON; `auto`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text where standard error is a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}
