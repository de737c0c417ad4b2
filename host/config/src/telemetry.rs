//! `telemetry:`: traces and metrics over OTLP, and the token for debugging.
//!
//! This module does not know: how traces are made or sent.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::log::{AccessLogTarget, Log};
use crate::values::{HOUR, MILLISECOND, SECOND, header_name, share};
use crate::yaml::Section;

/// Traces, metrics over OTLP, and the token for debugging.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// The attribute `service.name` of what is exported. Default `witgate`.
    pub service_name: String,
    /// Where traces, metrics and the access log go. `None` turns traces off.
    pub otlp: Option<Otlp>,
    /// Which exchanges are traced.
    pub traces: Traces,
    /// How often metrics are sent to `otlp`. `None` means never. Default of `interval` 60 s.
    pub metrics: Option<Duration>,
    /// A request with this token in `x-witgate-debug` gets `x-witgate-trace` in its response.
    pub debug_token: Option<Secret>,
}

/// A receiver of OTLP.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// Scheme, host and port, such as `http://127.0.0.1:4318`.
    pub endpoint: String,
    /// Default `http`.
    pub protocol: OtlpProtocol,
    /// Fields of each export request. The values are secrets.
    pub headers: Vec<(HeaderName, Secret)>,
    /// How long an export may take. Default 10 s.
    pub timeout: Duration,
}

/// How OTLP is transported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protocol Buffers over HTTP/1.1, usually at port 4318.
    Http,
    /// gRPC, usually at port 4317.
    Grpc,
}

/// Which exchanges are traced.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The share of the exchanges without a parent that are traced. Default 0.1.
    pub sample: f64,
    /// Exchanges that take at least this long are exported anyway, and so are failures. Default
    /// 1 s.
    pub slow: Duration,
}

/// A value that must not reach a log, a metric or a response.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(crate) String);

impl Secret {
    /// The value.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The value as a key: of a text that begins with `hex:`, the bytes that the digits stand for.
    pub fn key_bytes(&self) -> Vec<u8> {
        let digits = self.0.strip_prefix("hex:").and_then(|digits| hex::decode(digits.trim()).ok());
        digits.unwrap_or_else(|| self.0.clone().into_bytes())
    }

    /// A key for `crypto.keys`. `None` if it is empty, too long, or not what follows `hex:`.
    pub(crate) fn key(text: &str) -> Option<Self> {
        let is_valid = text.strip_prefix("hex:").is_none_or(|digits| hex::decode(digits.trim()).is_ok());
        ((1..=KEY_BYTES_MAX).contains(&text.len()) && is_valid).then(|| Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("(secret)")
    }
}

/// The fewest characters of the token, so that it cannot be guessed.
const TOKEN_CHARS_MIN: usize = 16;
const TOKEN_CHARS_MAX: usize = 256;
const KEY_BYTES_MAX: usize = 16 << 10;

impl Telemetry {
    pub(crate) fn read(section: &Section) -> Self {
        if section.has("traces") && !section.has("otlp") {
            section.warn_at(&["traces"], format!("nothing is traced: it {NEEDS_RECEIVER}"));
        }
        Self {
            service_name: section.scalar("service_name", service_name).unwrap_or_else(|| "witgate".into()),
            otlp: section.optional("otlp", Otlp::read),
            traces: section.nested("traces", |traces| Traces {
                sample: traces.scalar("sample", share).unwrap_or(0.1),
                slow: traces.duration("slow", MILLISECOND, HOUR).unwrap_or(Duration::from_secs(1)),
            }),
            metrics: section.optional("metrics", |metrics| {
                metrics.duration("interval", SECOND, HOUR).unwrap_or(Duration::from_secs(60))
            }),
            debug_token: read_token(section, "debug_token"),
        }
    }
}

const NEEDS_RECEIVER: &str = "needs a receiver: add telemetry.otlp.endpoint, such as http://127.0.0.1:4318";

/// What is sent to a receiver needs one.
pub(crate) fn check_receiver(top: &Section, telemetry: &Telemetry, log: &Log) {
    if telemetry.otlp.is_some() {
        return;
    }
    if telemetry.metrics.is_some() {
        top.error_at(&["telemetry", "metrics"], NEEDS_RECEIVER);
    }
    if log.otlp {
        top.error_at(&["log", "otlp"], NEEDS_RECEIVER);
    }
    if log.access.as_ref().is_some_and(|access| access.to == AccessLogTarget::Otlp) {
        top.error_at(&["log", "access", "to"], format!("otlp {NEEDS_RECEIVER}"));
    }
}

impl Otlp {
    fn read(section: &Section) -> Self {
        section.require("endpoint", "write the receiver's URL, such as http://127.0.0.1:4318");
        let protocols = [("http", OtlpProtocol::Http), ("grpc", OtlpProtocol::Grpc)];
        let endpoint = section.scalar("endpoint", endpoint).unwrap_or_default();
        let protocol = section.choice("protocol", &protocols, "write http or grpc").unwrap_or(OtlpProtocol::Http);
        let (other, port) = if protocol == OtlpProtocol::Http { ("grpc", "4317") } else { ("http", "4318") };
        if endpoint.ends_with(&format!(":{port}")) {
            let message = format!("receivers take {other} at port {port}: write protocol: {other}, or the other port");
            section.warn_at(&["endpoint"], message);
        }
        Self {
            endpoint,
            protocol,
            headers: read_headers(section),
            timeout: section.duration("timeout", MILLISECOND, HOUR).unwrap_or(Duration::from_secs(10)),
        }
    }
}

fn read_headers(section: &Section) -> Vec<(HeaderName, Secret)> {
    const ADVICE: &str = "is not a header value (RFC 9110, section 5.5)";
    let headers = section.free_form("headers");
    let is_valid = |text: &str| HeaderValue::from_str(text).is_ok().then(|| Secret(text.to_owned()));
    let mut read = vec![];
    for (key, node) in headers.entries() {
        match header_name(&key.text) {
            Ok(name) => read.extend(headers.secret(&key.text, node, is_valid, ADVICE).map(|value| (name, value))),
            Err(why) => headers.error(key.line, &key.text, why),
        }
    }
    read
}

fn service_name(text: &str) -> Result<String, String> {
    let is_short = !text.is_empty() && text.len() <= 255;
    if is_short { Ok(text.to_owned()) } else { Err("write 1 to 255 characters".into()) }
}

/// TLS is left to a collector on the same host or in the same pod.
fn endpoint(text: &str) -> Result<String, String> {
    const ADVICE: &str = "write http://host:port, such as http://127.0.0.1:4318";
    let uri: Uri = text.parse().map_err(|_| ADVICE.to_owned())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("https"), _) => {
            Err("https is not supported: send to a collector on this host by http, which forwards by https".into())
        }
        (Some("http"), Some(authority)) if matches!(uri.path(), "" | "/") && uri.query().is_none() => {
            Ok(format!("http://{authority}"))
        }
        _ => Err(ADVICE.into()),
    }
}

/// A token that cannot be guessed. A message about it does not show it.
pub(crate) fn read_token(section: &Section, key: &'static str) -> Option<Secret> {
    let node = section.get(key)?;
    let parse = |text: &str| {
        let is_valid = (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Secret(text.to_owned()))
    };
    section.secret(key, node, parse, "write 16 to 256 visible ASCII characters")
}
