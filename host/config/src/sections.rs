//! The sections of gateway.yaml, one function each: key by key, with default and bounds.
//!
//! Rules that concern several sections are in `rules.rs`. Must not know: files, sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use witgate_http::semantics::path::normalize;

use super::read::{Errors, Section, duration_within, nearest};
use super::tree::{Node, Value};
use super::{
    Capability, CompileLimits, Config, Filter, KeyValue, Limits, Listener, Log, LogFormat, OnError, Reload, Timeouts,
};
use super::{tls, upstream};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const CONFIG_KEYS_MAX: usize = 256;
const CONFIG_BYTES_MAX: usize = 64 << 10;

/// Reads the whole file. References between sections are checked by `rules.rs`.
pub(super) fn config(root: &Node, base: &Path, errors: &Errors) -> Config {
    let top = Section::new(Some(root), "", errors);
    let config = Config {
        workers: top.number("workers", 1, 256).unwrap_or_else(cores),
        listeners: listeners(&top, base),
        timeouts: timeouts(top.section("timeouts")),
        limits: limits(top.section("limits")),
        admin: admin(&top),
        state_dir: base.join(state(top.section("state"))),
        compile: compile(top.section("compile")),
        reload: reload(top.section("reload")),
        upstreams: named(&top, "upstreams", |section| upstream::upstream(section, base)),
        filters: named(&top, "filters", |section| filter(section, base)),
        routes: super::route::routes(&top),
        trusted_proxies: top.list("trusted_proxies", network),
        log: log(top.section("log")),
    };
    top.finish();
    config
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(256)
}

fn listeners(top: &Section, base: &Path) -> Vec<Listener> {
    let nodes = top.nodes("listeners");
    if nodes.is_empty() {
        return vec![Listener {
            name: "main".into(),
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            proxy_protocol: false,
            tls: None,
        }];
    }
    let read = |(index, node)| {
        let section = Section::new(Some(node), format!("listeners[{index}]"), top.errors);
        let name = section
            .scalar("name", name)
            .unwrap_or_else(|| if index == 0 { "main".into() } else { format!("listener-{}", index + 1) });
        let address = section.scalar("address", address);
        if address.is_none() && section.get("address").is_none() {
            section.error(section.line, "address", "is missing: write an address and a port, such as 0.0.0.0:8080");
        }
        let proxy_protocol = section.bool("proxy_protocol").unwrap_or(false);
        let tls = section.get("tls").is_some().then(|| tls::listener(section.section("tls"), base));
        section.finish();
        let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        Listener { name, address, proxy_protocol, tls }
    };
    nodes.iter().enumerate().map(read).collect()
}

fn timeouts(section: Section) -> Timeouts {
    let timeouts = Timeouts {
        filters: section.duration("filters", MILLISECOND, HOUR).unwrap_or(Duration::from_millis(500)),
        request_head: section.duration("request_head", MILLISECOND, HOUR).unwrap_or(Duration::from_secs(10)),
        request_body: section.duration("request_body", MILLISECOND, HOUR).unwrap_or(Duration::from_secs(30)),
        idle: section.duration("idle", MILLISECOND, HOUR).unwrap_or(Duration::from_secs(60)),
        send: section.duration("send", MILLISECOND, HOUR).unwrap_or(Duration::from_secs(30)),
        tunnel_idle: section.duration("tunnel_idle", MILLISECOND, HOUR * 24).unwrap_or(Duration::from_secs(600)),
        drain: section.duration("drain", MILLISECOND, HOUR).unwrap_or(Duration::from_secs(30)),
    };
    section.finish();
    timeouts
}

fn limits(section: Section) -> Limits {
    let limits = Limits {
        in_flight: section.number("in_flight", 1, 1_000_000).unwrap_or(1024),
        connections: section.number("connections", 1, 1_000_000).unwrap_or(10_000),
        request_head_bytes: section.size("request_head_bytes", 8 << 10, 1 << 20).unwrap_or(64 << 10),
        request_fields: section.number("request_fields", 16, 1000).unwrap_or(100),
        request_body_bytes: section.size("request_body_bytes", 1, 1 << 40).unwrap_or(1 << 30) as u64,
        streams: section.number("streams", 1, 10_000).unwrap_or(128),
        connections_per_client: section.number("connections_per_client", 0, 1_000_000).unwrap_or(0),
        min_bytes_per_second: section.number("min_bytes_per_second", 0, 1_000_000).unwrap_or(240),
        buffered_bytes: section.size("buffered_bytes", 64 << 10, 64 << 30).unwrap_or(256 << 20),
    };
    section.finish();
    limits
}

fn admin(top: &Section) -> Option<SocketAddr> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9901));
    match top.get("admin").map(|node| &node.value) {
        Some(Value::Scalar { text, .. }) if text == "off" => None,
        _ => {
            let section = top.section("admin");
            let address = section.scalar("address", address).unwrap_or(default);
            section.finish();
            Some(address)
        }
    }
}

fn state(section: Section) -> String {
    let folder = section.text("directory").unwrap_or_else(|| "state".into());
    section.finish();
    folder
}

fn compile(section: Section) -> CompileLimits {
    let default = CompileLimits::default();
    let compile = CompileLimits {
        memory_bytes: section.size("memory", 128 << 20, 64 << 30).map_or(default.memory_bytes, |bytes| bytes as u64),
        time: section.duration("time", Duration::from_secs(1), HOUR).unwrap_or(default.time),
        functions: section.number("functions", 1, 1_000_000).unwrap_or(default.functions),
        function_bytes: section.size("function_bytes", 1 << 10, 64 << 20).unwrap_or(default.function_bytes),
    };
    section.finish();
    compile
}

fn reload(section: Section) -> Reload {
    let default = Some(Duration::from_secs(30));
    let interval = section.scalar("interval", |text| match text {
        "off" => Ok(None),
        _ => duration_within(text, Duration::from_millis(100), HOUR).map(Some),
    });
    let reload = Reload { watch: section.bool("watch").unwrap_or(true), interval: interval.unwrap_or(default) };
    section.finish();
    reload
}

fn log(section: Section) -> Log {
    let format = section.scalar("format", |text| match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write auto, text or json".into()),
    });
    let log = Log {
        level: section.text("level").unwrap_or_else(|| "info".into()),
        format: format.unwrap_or(LogFormat::Auto),
    };
    section.finish();
    log
}

/// A mapping from names to sections.
fn named<T>(top: &Section, key: &'static str, read: impl Fn(Section) -> T) -> BTreeMap<String, T> {
    let all = top.section(key);
    let mut values = BTreeMap::new();
    for (entry, node) in all.entries() {
        if let Err(why) = name(&entry.text) {
            all.error(entry.line, &entry.text, why);
        }
        values.insert(entry.text.clone(), read(Section::new(Some(node), all.at(&entry.text), top.errors)));
    }
    values
}

fn filter(section: Section, base: &Path) -> Filter {
    let source = section.text("source").unwrap_or_default();
    if section.get("source").is_none() {
        section.error(section.line, "source", "is missing: write the path of the .wasm file");
    }
    let on_error = section.scalar("on_error", |text| match text {
        "closed" => Ok(OnError::Closed),
        "open" => Ok(OnError::Open),
        _ => Err("write closed (the exchange fails) or open (it goes on without the filter)".into()),
    });
    let mut capabilities = section.list("capabilities", |text| match text {
        "keyvalue" => Ok(Capability::KeyValue),
        "wasi" => Ok(Capability::Wasi),
        _ => Err(match nearest(text, &["keyvalue", "wasi"]) {
            Some(near) => format!("unknown capability: did you mean {near}?"),
            None => "unknown capability: there are keyvalue and wasi".into(),
        }),
    });
    capabilities.sort();
    capabilities.dedup();
    let keyvalue = section.section("keyvalue");
    let filter = Filter {
        source: base.join(source),
        version: section.text("version"),
        sha256: section.scalar("sha256", sha256),
        timeout: section.duration("timeout", MILLISECOND, HOUR).unwrap_or(Duration::from_millis(100)),
        memory_bytes: section.size("memory", 64 << 10, 256 << 20).unwrap_or(64 << 20),
        on_error: on_error.unwrap_or(OnError::Closed),
        reuse: section.number("reuse", 1, 1_000_000).unwrap_or(1),
        capabilities,
        config: filter_config(&section),
        keyvalue: KeyValue {
            keys: keyvalue.number("keys", 1, 10_000_000).unwrap_or(100_000),
            bytes: keyvalue.size("bytes", 1 << 10, 4 << 30).unwrap_or(64 << 20),
        },
    };
    keyvalue.finish();
    section.finish();
    filter
}

/// Strings as they are, other values as JSON text: what the guest reads.
pub(super) fn filter_config(section: &Section) -> BTreeMap<String, String> {
    let own = section.section("config");
    let mut values = BTreeMap::new();
    for (key, node) in own.entries() {
        let value = match &node.value {
            Value::Scalar { text, .. } => text.clone(),
            _ => node.to_json().to_string(),
        };
        values.insert(key.text.clone(), value);
    }
    let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
    if values.len() > CONFIG_KEYS_MAX || bytes > CONFIG_BYTES_MAX {
        section.error(own.line, "config", format!("has more than {CONFIG_KEYS_MAX} keys or {CONFIG_BYTES_MAX} bytes"));
    }
    values
}

pub(super) fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && text.len() <= 64 && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 64 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit".into())
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".into())
}

/// A network, or one address as the network of itself.
fn network(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse::<std::net::IpAddr>()
        .map(ipnet::IpNet::from)
        .or_else(|_| text.parse())
        .map_err(|_| "write a network such as 10.0.0.0/8 or fd00::/8, or one address".into())
}

fn sha256(text: &str) -> Result<[u8; 32], String> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).map_err(|_| "write 64 hexadecimal digits (sha256sum FILE)".to_owned())?;
    Ok(digest)
}

/// A token of RFC 9110, section 5.6.2: a method or a field's name.
pub(super) fn token(text: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(good) {
        Ok(text.to_owned())
    } else {
        Err("is not a token (RFC 9110, section 5.6.2)".into())
    }
}

pub(super) fn path(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte > b' ' && byte < 0x7f && byte != b'?' && byte != b'#');
    if !text.starts_with('/') || !plain {
        return Err("a path begins with /, has no query and only visible ASCII (%-encode the rest)".into());
    }
    // Requests are compared in their normal form: another one would never match.
    match normalize(text) {
        Ok(normal) if normal == text => Ok(text.to_owned()),
        Ok(normal) => Err(format!("is not in normal form: write {normal}")),
        Err(why) => Err(why.to_owned()),
    }
}

pub(super) fn host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if name.is_empty() || !name.bytes().all(good) || (name.contains(':') && !name.starts_with('[')) {
        return Err("write a host name without port, such as api.example.com or *.example.com".into());
    }
    Ok(text.to_ascii_lowercase())
}
