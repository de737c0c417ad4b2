//! `filters:`: components, and what each of them may do.
//!
//! This module does not know: what a .wasm file contains, which routes use a filter.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::locations::FilterSource;
use crate::outbound::FilterHttp;
use crate::references::{FilterConfig, Reference};
use crate::release::Release;
use crate::routes::rate_limit::read_lease;
use crate::sources::SourceSettings;
use crate::telemetry::Secret;
use crate::values::{HOUR, MILLISECOND, name, sha256};
use crate::yaml::{Section, Value, nearest};

const CONFIG_KEYS_MAX: usize = 256;
const CONFIG_BYTES_MAX: usize = 64 << 10;
const CRYPTO_KEYS_MAX: usize = 64;
const KEY_ADVICE: &str =
    "write {file: PATH} or {env: NAME} with 1 byte to 16 KiB; after hex: there are only pairs of hexadecimal digits";
/// The largest body that the interface of filters has room for.
const BODY_BYTES_MAX: usize = 8 << 20;
const MEMORY_BYTES_DEFAULT: usize = 64 << 20;

/// A component and what it may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The component: a file, or an object on a server.
    pub source: FilterSource,
    /// How it is fetched, and which signatures it needs.
    pub source_settings: SourceSettings,
    /// The version that the component's manifest must have.
    pub version: Option<String>,
    /// The SHA-256 digest that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// Whether a server may offer an older version than before. Default false.
    pub allow_downgrade: bool,
    /// The name that a minisign signature must be for. Default the filter's name.
    pub signed_name: Option<String>,
    /// For one call. Default 100 ms; at least 1 ms. It is below `timeouts.filters`, and at most
    /// half of the timeout of every upstream that the filter is used with.
    pub timeout: Duration,
    /// Linear memory of one instance in bytes. Default 64 MiB; 64 KiB to 256 MiB.
    pub memory_bytes: usize,
    /// The largest body that it may read or make, in bytes, whatever its manifest asks for. Default
    /// 8 MiB, which is also the most.
    pub body_bytes: usize,
    /// Concurrent calls over all threads; above it calls fail as saturated. Default 256; 1 to
    /// 1,000,000.
    pub concurrency: usize,
    /// What a failed call does to the exchange. Default closed.
    pub on_error: OnError,
    /// How many calls an instance serves in sequence. Default 1: a fresh instance for each call;
    /// at most 1,000,000.
    pub reuse: u32,
    /// What the component may import beyond the base world.
    pub capabilities: Vec<Capability>,
    /// The filter's own settings: strings as they are, other values as JSON text.
    pub config: FilterConfig,
    /// The same for each route that extends it, by the route's name.
    pub route_configs: Vec<(String, FilterConfig)>,
    /// Where its key-value store is, and its bounds.
    pub keyvalue: KeyValue,
    /// How a new version takes over. Default: without steps.
    pub release: Option<Release>,
    /// Where the counts of its limiter are, and their bound.
    pub limiter: Limiter,
    /// What it may call.
    pub http: FilterHttp,
    /// Its keys for `crypto`, by name. At most 64.
    pub keys: BTreeMap<String, Secret>,
}

/// A filter's key-value store.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyValue {
    /// Default: this gateway's memory.
    pub store: Option<StoreRef>,
    /// Default 100,000; 1 to 10,000,000.
    pub keys: usize,
    /// Bytes of keys and values together. Default 64 MiB; 1 KiB to 4 GiB. Holds in memory only.
    pub bytes: usize,
}

/// A filter's rate limiter.
#[derive(Debug, Clone, PartialEq)]
pub struct Limiter {
    /// Default: this gateway's memory.
    pub store: Option<StoreRef>,
    /// Keys that are counted in memory. Default 100,000; 1 to 10,000,000.
    pub keys: usize,
    /// As `rate_limit.lease` of a route.
    pub lease: Option<u32>,
}

/// A part of a shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreRef {
    /// A name in `stores:`.
    pub store: String,
    /// Separates the entries from those of other filters. Default the filter's name.
    pub namespace: Option<String>,
}

impl StoreRef {
    fn read(section: &Section) -> Option<Self> {
        let (store, namespace) = (section.string("store"), section.scalar("namespace", name));
        if store.is_none() && namespace.is_some() {
            section.error_at(&["namespace"], "has no effect without store: add `store: NAME`, or remove it");
        }
        store.map(|store| Self { store, namespace })
    }
}

/// An import beyond the base world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// `keyvalue`: the interface `witgate:gateway/keyvalue`.
    KeyValue,
    /// `limiter`: the interface `witgate:gateway/limiter`.
    Limiter,
    /// `http`: the interface `witgate:gateway/http`.
    Http,
    /// `crypto`: the interface `witgate:gateway/crypto`.
    Crypto,
    /// `wasi`: WASI 0.2 with clocks, random numbers and standard streams that discard their
    /// output; without files, sockets, environment variables and arguments.
    Wasi,
}

impl Capability {
    /// The name in gateway.yaml.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KeyValue => "keyvalue",
            Self::Limiter => "limiter",
            Self::Http => "http",
            Self::Crypto => "crypto",
            Self::Wasi => "wasi",
        }
    }
}

/// What a failed filter call does to the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The exchange fails with 502, or with 504 after a timeout.
    Closed,
    /// The exchange continues without the filter.
    Open,
}

impl Filter {
    /// Reads what a component has in every place: source, pin, memory and concurrency. The rest is
    /// at its default.
    pub(crate) fn read_code(section: &Section, base: &Path) -> Self {
        section.require("source", "write the path of the .wasm file, or a URL with https, s3, gs, az or oci");
        Self {
            source: section.scalar("source", |text| FilterSource::parse(text, base)).unwrap_or_default(),
            source_settings: SourceSettings::default(),
            version: section.string("version"),
            allow_downgrade: section.bool("allow_downgrade").unwrap_or(false),
            signed_name: section.string("signed_name"),
            sha256: section.scalar("sha256", sha256),
            timeout: Duration::from_millis(100),
            memory_bytes: section.size("memory", 64 << 10, 256 << 20).unwrap_or(MEMORY_BYTES_DEFAULT),
            body_bytes: BODY_BYTES_MAX,
            concurrency: section.number("concurrency", 1, 1_000_000).unwrap_or(256),
            on_error: OnError::Closed,
            reuse: 1,
            capabilities: vec![],
            config: FilterConfig::default(),
            route_configs: vec![],
            limiter: Limiter { store: None, keys: 1, lease: None },
            keyvalue: KeyValue { store: None, keys: 1, bytes: 1 << 10 },
            release: None,
            http: FilterHttp::default(),
            keys: BTreeMap::new(),
        }
    }

    pub(crate) fn read(section: &Section, base: &Path) -> Self {
        section.require("source", "write the path of the .wasm file, or a URL with https, s3, gs, az or oci");
        let on_error = section.choice(
            "on_error",
            &[("closed", OnError::Closed), ("open", OnError::Open)],
            "write closed (the exchange fails) or open (it goes on without the filter)",
        );
        let capabilities = capabilities(section);
        for (key, capability) in [("http", Capability::Http), ("crypto", Capability::Crypto)] {
            if section.has(key) && !capabilities.contains(&capability) {
                section.error_at(&[key], format!("has no effect without `capabilities: [{key}]`: add it"));
            }
        }
        Self {
            source: section.scalar("source", |text| FilterSource::parse(text, base)).unwrap_or_default(),
            source_settings: SourceSettings::default(),
            version: section.string("version"),
            sha256: section.scalar("sha256", sha256),
            allow_downgrade: section.bool("allow_downgrade").unwrap_or(false),
            signed_name: section.string("signed_name"),
            timeout: section.duration("timeout", MILLISECOND, HOUR).unwrap_or(Duration::from_millis(100)),
            memory_bytes: section.size("memory", 64 << 10, 256 << 20).unwrap_or(MEMORY_BYTES_DEFAULT),
            body_bytes: section.size("body", 1, BODY_BYTES_MAX).unwrap_or(BODY_BYTES_MAX),
            concurrency: section.number("concurrency", 1, 1_000_000).unwrap_or(256),
            on_error: on_error.unwrap_or(OnError::Closed),
            reuse: section.number("reuse", 1, 1_000_000).unwrap_or(1),
            capabilities,
            config: read_config(section),
            route_configs: vec![],
            limiter: section.nested("limiter", |section| Limiter {
                store: StoreRef::read(section),
                keys: section.number("keys", 1, 10_000_000).unwrap_or(100_000),
                lease: read_lease(section),
            }),
            keyvalue: section.nested("keyvalue", |section| KeyValue {
                store: StoreRef::read(section),
                keys: section.number("keys", 1, 10_000_000).unwrap_or(100_000),
                bytes: section.size("bytes", 1 << 10, 4 << 30).unwrap_or(MEMORY_BYTES_DEFAULT),
            }),
            release: section.optional("release", Release::read),
            http: section.nested("http", FilterHttp::read),
            keys: section.nested("crypto", read_keys),
        }
    }
}

/// Reads `keys:` under `crypto:`. No message shows a value.
fn read_keys(section: &Section) -> BTreeMap<String, Secret> {
    let all = section.free_form("keys");
    if all.entries().len() > CRYPTO_KEYS_MAX {
        section.error_at(&["keys"], format!("has more than {CRYPTO_KEYS_MAX} keys"));
    }
    let mut keys = BTreeMap::new();
    for (key, node) in all.entries().iter().take(CRYPTO_KEYS_MAX) {
        if let Err(why) = name(&key.text) {
            all.error(key.line, &key.text, why);
        }
        if let Some(secret) = all.secret(&key.text, node, Secret::key, KEY_ADVICE) {
            keys.insert(key.text.clone(), secret);
        }
    }
    keys
}

/// Reads `config:` of a filter or of a filter in a route.
pub(crate) fn read_config(section: &Section) -> FilterConfig {
    read_values(section, "config")
}

/// Reads a mapping with any keys: strings as they are, other values as JSON text.
pub(crate) fn read_values(section: &Section, key: &'static str) -> FilterConfig {
    let own = section.free_form(key);
    let mut values = FilterConfig::default();
    for (key, node) in own.entries() {
        let look_up = |reference: &Reference<'_>| own.look_up(reference);
        let value = match (&node.value, node.reference()) {
            (Value::Scalar { text, .. }, _) => Ok(text.clone()),
            (_, Some(reference)) => look_up(&reference),
            _ => node.to_json(&look_up).map(|json| json.to_string()),
        };
        match value {
            Ok(value) => drop(values.insert(key.text.clone(), value)),
            Err(why) => own.error(node.line, &key.text, why),
        }
    }
    let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
    if values.len() > CONFIG_KEYS_MAX || bytes > CONFIG_BYTES_MAX {
        let message = format!("has more than {CONFIG_KEYS_MAX} keys or {CONFIG_BYTES_MAX} bytes");
        section.error(own.line(), key, message);
    }
    values
}

/// Sorted, each at most once.
pub(crate) fn capabilities(section: &Section) -> Vec<Capability> {
    let mut capabilities = section.list("capabilities", |text| match text {
        "keyvalue" => Ok(Capability::KeyValue),
        "limiter" => Ok(Capability::Limiter),
        "http" => Ok(Capability::Http),
        "crypto" => Ok(Capability::Crypto),
        "wasi" => Ok(Capability::Wasi),
        _ => Err(match nearest(text, &["keyvalue", "limiter", "http", "crypto", "wasi"]) {
            Some(near) => format!("unknown capability: did you mean {near}?"),
            None => "unknown capability: write keyvalue, limiter, http, crypto or wasi".into(),
        }),
    });
    capabilities.sort();
    capabilities.dedup();
    capabilities
}
