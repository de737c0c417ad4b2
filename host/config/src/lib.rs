//! The configuration file gateway.yaml as checked types: code that holds a [`Config`] need not
//! check anything again.
//!
//! [`Config::parse`] turns the text into a tree that knows its lines (`yaml/tree.rs`), reads one
//! key after the other with `yaml/section.rs`, and then checks the rules between keys
//! (`consistency.rs`). Each top-level key has a file with its type, its defaults and its bounds.
//! All mistakes are collected, so that one run reports every one of them with line and path.
//!
//! This crate does not know: files, sockets, clocks, Wasm. A check therefore has the same result
//! on every machine.

mod admin;
mod compile;
mod consistency;
mod dns;
mod error;
mod error_pages;
mod filters;
mod include;
mod ineffective;
mod key_forms;
mod limits;
mod listen_address;
mod listeners;
mod locations;
mod log;
mod masked;
mod outbound;
mod references;
mod release;
mod reload;
mod routes;
mod schema;
mod source_rules;
mod sources;
mod state;
mod stores;
mod telemetry;
#[cfg(test)]
mod tests;
mod timeouts;
mod tls;
mod untrusted_fields;
mod upstreams;
mod values;
mod workers;
mod yaml;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

pub use compile::CompileLimits;
pub use error::{ConfigError, ConfigErrors};
pub use error_pages::{ErrorPage, ErrorPageMatch};
pub use filters::{Capability, Filter, KeyValue, Limiter, OnError, StoreRef};
pub use limits::Limits;
pub use listen_address::ListenAddress;
pub use listeners::{HalfClose, Hsts, Listener, RedirectToHttps};
pub use locations::{BucketObject, BucketService, FilterSource, OciReference, RemoteKind, RemoteLocation};
pub use log::{AccessCondition, AccessField, AccessLog, AccessLogTarget, Log, LogFormat, check_level};
pub use outbound::{Destination, Direct, FilterHttp};
pub use references::{AnyReference, FilterConfig, NoReferences, References};
pub use release::{ExamplesGate, Gates, Release, ReleaseBucket, ReleaseStore, Shadow, Share, Step, Sticky};
pub use reload::Reload;
pub use routes::action::{DirectResponse, Redirect, RedirectPath};
pub use routes::basic_auth::{BasicAuth, Users};
pub use routes::compression::{Compression, Encoding};
pub use routes::conditions::{Match, PathMatch, Pattern, ValueMatch};
pub use routes::cors::{Cors, Origin};
pub use routes::jwt::{Jwks, Jwt, JwtKeys, TokenPlace};
pub use routes::policies::{ClientNetworks, ForwardAuth, HeaderEdits, HeaderPolicy};
pub use routes::rate_limit::{RateAlgorithm, RateKey, RateLimit};
pub use routes::rewrite::{PathRewrite, Rewrite};
pub use routes::{Action, Mirror, Route, RouteFilter, RouteLimits, WeightedUpstream};
pub use sources::{Denied, DeniedPackage, Signatures, SignerIdentity, SourceSettings, Sources};
pub use stores::{OnStoreFailure, Redis, RedisAddress, SharedStore};
pub use telemetry::{Otlp, OtlpProtocol, Secret, Telemetry, Traces};
pub use timeouts::Timeouts;
pub use tls::{Alpn, CertificateFiles, ClientAuth, ListenerTls, TlsVersion, UpstreamTls};
pub use upstreams::balance::{Balance, HashKey};
pub use upstreams::component::UpstreamComponent;
pub use upstreams::endpoints::{AddressKind, EndpointAddress, EndpointConfig, UpstreamTarget};
pub use upstreams::health::{HealthCheck, OutlierDetection};
pub use upstreams::http2::Http2Settings;
pub use upstreams::retries::Retries;
pub use upstreams::{Protocol, Upstream, UpstreamLimits};
pub use yaml::{nearest, yaml_to_json};

pub use admin::{Admin, AdminClients};
use error::Reading;
use include::Included;
use witgate_http::semantics::fields::FieldNames;
use yaml::Section;

/// A complete and consistent configuration. Any of its texts may be a secret, so `Debug` shows only
/// what it is made of.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// Threads that serve traffic, each with its own runtime, sockets and connection pools.
    /// Default: the number of cores; 1 to 256.
    pub workers: usize,
    /// Sockets for clients. At least one.
    pub listeners: Vec<Listener>,
    /// How long the gateway waits for clients and filters.
    pub timeouts: Timeouts,
    /// Bounds on the memory and connections that clients can use.
    pub limits: Limits,
    /// Where metrics, health and readiness are served, and who may give commands there.
    pub admin: Admin,
    /// The folder for compiled filters. Default `state`; relative to the folder of gateway.yaml.
    pub state_dir: PathBuf,
    /// Bounds on compiling a filter.
    pub compile: CompileLimits,
    /// How the gateway notices changed files.
    pub reload: Reload,
    /// Servers that resolve the names of upstreams. Empty: those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// By name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Stores that several gateways share, by name.
    pub stores: BTreeMap<String, SharedStore>,
    /// By name.
    pub filters: BTreeMap<String, Filter>,
    /// How filters are fetched and checked.
    pub sources: Sources,
    /// Components and packages that no filter may use.
    pub denied: Denied,
    /// In the order of the file. The most specific match wins; of equal ones, the first.
    pub routes: Vec<Route>,
    /// Bodies for failures without a route. Each route has them, too.
    pub error_pages: Vec<ErrorPage>,
    /// Peers whose `x-forwarded-for` and `forwarded` fields are believed. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// Fields that only a proxy sets, removed from requests of other peers.
    pub untrusted_fields: FieldNames,
    /// Whether `//` in a path becomes `/`. Default true.
    pub merge_slashes: bool,
    /// The gateway's own log, and the access log.
    pub log: Log,
    /// Traces, and the token for debugging.
    pub telemetry: Telemetry,
    /// The file, as messages name it.
    pub file: String,
    /// The SHA-256 of its text.
    pub sha256: String,
    /// The keys as they are written, without secrets.
    pub written: serde_json::Value,
    /// What can work but is probably not what the operator means. Sorted by line.
    pub warnings: Vec<ConfigError>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Config");
        shown.field("routes", &self.routes.len()).field("filters", &self.filters.len());
        shown.field("upstreams", &self.upstreams.len()).finish_non_exhaustive()
    }
}

/// The JSON Schema of gateway.yaml, for editors (draft 2020-12).
pub fn schema() -> serde_json::Value {
    schema::of(read_for_shapes)
}

/// Reads a file only to learn which keys the readers ask for.
fn read_for_shapes(top: &Section) {
    drop(Config::read(top, Path::new("/"), &Included::default()));
}

impl Config {
    /// Parses and checks the text of a gateway.yaml without references. `file` names it in error
    /// messages; relative paths in it are relative to `base`.
    pub fn parse(text: &str, file: &str, base: &Path) -> Result<Self, ConfigErrors> {
        Self::parse_with(text, file, base, &NoReferences)
    }

    /// Like [`parse`](Self::parse), for a text that may contain `{env: NAME}` and `{file: PATH}`.
    pub fn parse_with(text: &str, file: &str, base: &Path, references: &dyn References) -> Result<Self, ConfigErrors> {
        let mut root = yaml::parse(text).map_err(|error| ConfigErrors::new(file, vec![error]))?;
        let mut errors = vec![];
        // The first reading only looks for the files to include. The second one reports mistakes.
        let entries = include::read(&Section::root(&root, &Reading::new(references, base)));
        let included = Included::append(&mut root, entries, references, base, &mut errors);
        let reading = Reading::new(references, base);
        let mut config = Section::read_file(&root, &reading, |top| Self::read(top, base, &included));
        config.file = file.to_owned();
        config.sha256 = hex::encode(Sha256::digest(text));
        config.written = masked::masked(&root);
        let Reading { errors: found, warnings, .. } = reading;
        errors.extend(found.into_inner());
        config.warnings = warnings.into_inner();
        config.warnings.sort_by_key(|warning| warning.line);
        config.warnings.iter_mut().for_each(|warning| warning.name_file(&included.files));
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors::new(file, errors).name_files(&included.files)) }
    }

    /// Reads all top-level keys, then checks the rules between them.
    fn read(top: &Section, base: &Path, included: &Included) -> Self {
        include::read(top);
        let mut filters =
            top.named("filters", "{api-key: {source: api-key.wasm}}", |section| Filter::read(section, base));
        let error_pages = error_pages::read(top);
        let mut routes = routes::read(top, &filters);
        routes.iter_mut().for_each(|route| route.error_pages.extend_from_slice(&error_pages));
        routes::collect_configs(&routes, &mut filters);
        let sources = Sources::read(top, base);
        let mut upstreams = top.named("upstreams", "{api: {endpoints: [\"http://127.0.0.1:3000\"]}}", |section| {
            Upstream::read(section, base)
        });
        source_rules::apply(top, &sources, &mut filters, &mut upstreams);
        let mut config = Self {
            workers: workers::read(top),
            listeners: listeners::read(top, base),
            timeouts: top.nested("timeouts", Timeouts::read),
            limits: top.nested("limits", Limits::read),
            admin: Admin::read(top, base),
            state_dir: state::read(top, base),
            compile: top.nested("compile", CompileLimits::read),
            reload: top.nested("reload", Reload::read),
            dns_servers: dns::read(top),
            upstreams,
            stores: top.named("stores", "{shared: {redis: {url: \"redis://127.0.0.1:6379\"}}}", |section| {
                SharedStore::read(section, base)
            }),
            routes,
            error_pages,
            filters,
            sources,
            denied: sources::read_denied(top),
            trusted_proxies: top.list("trusted_proxies", values::network),
            untrusted_fields: untrusted_fields::read(top),
            merge_slashes: top.bool("merge_slashes").unwrap_or(true),
            log: top.nested("log", |section| Log::read(section, base)),
            telemetry: top.nested("telemetry", Telemetry::read),
            warnings: vec![],
            file: String::new(),
            sha256: String::new(),
            written: serde_json::Value::Null,
        };
        included.check(top, &config.sources, &config.filters, &config.routes);
        consistency::check(top, config.timeouts.filters, &config.upstreams, &config.filters, &config.routes);
        telemetry::check_receiver(top, &config.telemetry, &config.log);
        admin::check_names(top, &config.admin, &config.listeners);
        admin::check_address(top, &config.admin, &config.listeners);
        listeners::check_trust(top, &config.listeners, &config.trusted_proxies);
        consistency::check_stores(top, &config.stores, &config.filters, &config.routes);
        consistency::check_calls(top, &config.upstreams, &config.filters);
        // After the checks: nobody can change the timeouts of these.
        let of_filters = config.filters.values().flat_map(|filter| filter.http.direct());
        let of_components = config.upstreams.values().flat_map(|upstream| upstream.target.direct_calls());
        for direct in of_filters.chain(of_components).cloned().collect::<Vec<_>>() {
            config.upstreams.insert(direct.upstream(), upstreams::direct::direct(&direct, top, base));
        }
        routes::unreachable::check(top, &config.routes);
        routes::clear_text::check(top, &config.listeners, &config.routes);
        let trust = (config.trusted_proxies.as_slice(), &config.untrusted_fields);
        ineffective::check(top, &config.listeners, &config.upstreams, &config.routes, trust);
        ineffective::check_filters(top, &config.filters, &config.routes);
        config
    }

    /// The components that answer as upstreams, by the upstream's name.
    pub fn components(&self) -> impl Iterator<Item = (&String, &UpstreamComponent)> {
        self.upstreams.iter().filter_map(|(name, upstream)| Some((name, upstream.target.component()?)))
    }

    /// Everything that has a source: the filters, and the components of upstreams.
    pub fn sourced(&self) -> impl Iterator<Item = &Filter> {
        self.filters.values().chain(self.components().map(|(_, component)| &component.code))
    }

    /// Every file with certificates or keys.
    pub fn certificate_files(&self) -> impl Iterator<Item = &Path> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let listeners = listeners.chain(&self.admin.tls).flat_map(ListenerTls::files);
        let upstreams = self.upstreams.values().filter_map(|upstream| upstream.tls.as_ref());
        let stores = self.stores.values().filter_map(|store| store.redis.tls.as_ref());
        listeners.chain(upstreams.chain(stores).flat_map(UpstreamTls::files))
    }
}
