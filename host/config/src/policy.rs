//! What a route does by itself, without a filter: rewrite, redirect, respond, mirror, limits, CORS, compression.
//!
//! Each type is what its stage (`stage/rewrite.rs`, …) is made from, each section one function. Must not know: how any of it works.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::conditions::{Pattern, pattern};
use super::read::Section;
use super::sections::{path, token};

const DAY: Duration = Duration::from_secs(24 * 3600);
const REPLY_BYTES_MAX: usize = 64 << 10;

/// What the upstream gets to see instead of what the client asked for. Filters see the latter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    /// None leaves the path; the query always stays.
    pub path: Option<PathRewrite>,
    /// The `host` field, with its port.
    pub host: Option<HeaderValue>,
}

/// A new path.
#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// `prefix: /new`: instead of the prefix that the route matches.
    Prefix(String),
    /// `path: {regex: "^/v[0-9]+/(.*)", replace: "/$1"}`: the first place that matches; a path without one stays.
    Regex(Pattern, String),
}

/// An answer that sends the client elsewhere. What is not given stays as the client asked for it, the query always.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// 301, 302, 307 or 308. Default 302.
    pub status: StatusCode,
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// With its port, if it is not the scheme's.
    pub host: Option<String>,
    /// Another path.
    pub path: Option<RedirectPath>,
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// `path: /new`.
    Whole(String),
    /// `prefix: /new`: instead of the prefix that the route matches.
    Prefix(String),
}

/// An answer that is written in the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// 200 to 599. Default 200.
    pub status: StatusCode,
    /// Default empty; at most 64 KiB.
    pub body: String,
    /// Default `text/plain; charset=utf-8`.
    pub content_type: HeaderValue,
}

/// Where copies of requests go. What it answers is thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// A key of [`super::Config::upstreams`].
    pub upstream: String,
    /// Of the requests. 1 to 100; default 100.
    pub percent: u8,
}

/// Bounds of one route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteLimits {
    /// Bytes of a request's body; above it 413.
    pub request_body_bytes: Option<usize>,
    /// Exchanges at once; above it 503. A reload begins to count anew.
    pub in_flight: Option<usize>,
}

/// Which other sites' scripts may use the route (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// At least one.
    pub origins: Vec<Origin>,
    /// Default GET, HEAD, POST.
    pub methods: Vec<String>,
    /// Request fields that scripts may set; `*` for any.
    pub headers: Vec<String>,
    /// Response fields that scripts may read; `*` for any.
    pub expose: Vec<String>,
    /// Whether requests may carry cookies; then nothing may be `*`.
    pub credentials: bool,
    /// How long browsers remember the answer. Default 10 minutes.
    pub max_age: Duration,
}

/// A site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`.
    Any,
    /// `https://app.example.com`.
    Exact(String),
    /// `https://*.example.com`: what stands before and after the star.
    Wildcard(String, String),
}

/// Which responses are compressed.
#[derive(Debug, Clone, PartialEq)]
pub struct Compression {
    /// Media types, lower case: `application/json`, `text/*`.
    pub types: Vec<String>,
    /// Responses known to be shorter are left. Default 1024.
    pub min_bytes: usize,
    /// The first wins where the client likes several equally. Default zstd, br, gzip.
    pub encodings: Vec<Encoding>,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

const TYPES: &[&str] = &[
    "text/html",
    "text/css",
    "text/plain",
    "text/javascript",
    "text/xml",
    "text/csv",
    "text/markdown",
    "text/event-stream",
    "application/javascript",
    "application/json",
    "application/problem+json",
    "application/ld+json",
    "application/xml",
    "application/wasm",
    "image/svg+xml",
];

pub(super) fn rewrite(section: Section) -> Rewrite {
    let prefix = section.scalar("prefix", path).map(PathRewrite::Prefix);
    let own = section.section("path");
    let regex = own.scalar("regex", pattern);
    let replace = own.text("replace");
    if own.get("regex").is_some() != own.get("replace").is_some() {
        section.error(own.line, "path", "has regex and replace: {regex: \"^/v[0-9]+/(.*)\", replace: \"/$1\"}");
    }
    if prefix.is_some() && section.get("path").is_some() {
        section.error(section.line, "path", "a rewrite has prefix or path, not both");
    }
    own.finish();
    let host = section.scalar("host", authority).and_then(|host| HeaderValue::try_from(host).ok());
    section.finish();
    let regex = regex.zip(replace).map(|(regex, replace)| PathRewrite::Regex(regex, replace));
    Rewrite { path: prefix.or(regex), host }
}

pub(super) fn redirect(section: Section) -> Redirect {
    let status = section.scalar("status", |text| match text {
        "301" => Ok(StatusCode::MOVED_PERMANENTLY),
        "302" => Ok(StatusCode::FOUND),
        "307" => Ok(StatusCode::TEMPORARY_REDIRECT),
        "308" => Ok(StatusCode::PERMANENT_REDIRECT),
        _ => Err("write 301 or 308 (for good), 302 or 307 (for now); 307 and 308 keep the method".into()),
    });
    let scheme = section.scalar("scheme", |text| match text {
        "http" => Ok("http"),
        "https" => Ok("https"),
        _ => Err("write http or https".into()),
    });
    let host = section.scalar("host", authority);
    let whole = section.scalar("path", path).map(RedirectPath::Whole);
    let prefix = section.scalar("prefix", path).map(RedirectPath::Prefix);
    if whole.is_some() && prefix.is_some() {
        section.error(section.line, "prefix", "a redirect has path or prefix, not both");
    }
    if ["scheme", "host", "path", "prefix"].into_iter().all(|key| section.get(key).is_none()) {
        section.error(section.line, "host", "a redirect changes scheme, host, path or prefix, else it leads to itself");
    }
    section.finish();
    Redirect { status: status.unwrap_or(StatusCode::FOUND), scheme, host, path: whole.or(prefix) }
}

pub(super) fn respond(section: Section) -> DirectResponse {
    let status = section.number("status", 200_u16, 599).and_then(|status| StatusCode::from_u16(status).ok());
    let body = section.scalar("body", |text| match text.len() {
        0..=REPLY_BYTES_MAX => Ok(text.to_owned()),
        _ => Err("has more than 64KiB".into()),
    });
    let content_type =
        section.scalar("content_type", |text| HeaderValue::from_str(text).map_err(|_| "is not a field's value".into()));
    section.finish();
    DirectResponse {
        status: status.unwrap_or(StatusCode::OK),
        body: body.unwrap_or_default(),
        content_type: content_type.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8")),
    }
}

pub(super) fn mirror(section: Section) -> Mirror {
    let mirror = Mirror {
        upstream: section.text("upstream").unwrap_or_default(),
        percent: section.number("percent", 1, 100).unwrap_or(100),
    };
    if section.get("upstream").is_none() {
        section.error(section.line, "upstream", "is missing: name one of the upstreams");
    }
    section.finish();
    mirror
}

pub(super) fn route_limits(section: Section) -> RouteLimits {
    let limits = RouteLimits {
        request_body_bytes: section.size("request_body_bytes", 0, 1 << 40),
        in_flight: section.number("in_flight", 1, 1_000_000),
    };
    section.finish();
    limits
}

pub(super) fn cors(section: Section) -> Cors {
    let names = |key| section.list(key, |text| if text == "*" { Ok(text.into()) } else { field(text) });
    let mut methods = section.list("methods", token);
    if section.get("methods").is_none() {
        methods = ["GET", "HEAD", "POST"].map(str::to_owned).into();
    }
    let cors = Cors {
        origins: section.list("origins", origin),
        methods,
        headers: names("headers"),
        expose: names("expose"),
        credentials: section.bool("credentials").unwrap_or(false),
        max_age: section.duration("max_age", Duration::ZERO, DAY).unwrap_or(Duration::from_secs(600)),
    };
    if section.get("origins").is_none() {
        section.error(section.line, "origins", "is missing: write origins such as https://app.example.com");
    }
    let stars = [
        ("origins", cors.origins.contains(&Origin::Any)),
        ("methods", cors.methods.iter().any(|one| one == "*")),
        ("headers", cors.headers.iter().any(|one| one == "*")),
        ("expose", cors.expose.iter().any(|one| one == "*")),
    ];
    for (key, _) in stars.into_iter().filter(|(_, star)| *star && cors.credentials) {
        section.error(
            section.line,
            key,
            "with credentials nothing may be *: any site could act as the user; write names",
        );
    }
    section.finish();
    cors
}

pub(super) fn compression(section: Section) -> Compression {
    let mut types = section.list("types", media_type);
    if section.get("types").is_none() {
        types = TYPES.iter().map(|one| (*one).to_owned()).collect();
    }
    let mut encodings = section.list("encodings", |text| match text {
        "zstd" => Ok(Encoding::Zstd),
        "br" => Ok(Encoding::Brotli),
        "gzip" => Ok(Encoding::Gzip),
        _ => Err("write zstd, br or gzip".into()),
    });
    if section.get("encodings").is_none() {
        encodings = vec![Encoding::Zstd, Encoding::Brotli, Encoding::Gzip];
    }
    let min_bytes = section.size("min_bytes", 0, 1 << 30).unwrap_or(1024);
    section.finish();
    Compression { types, min_bytes, encodings }
}

fn authority(text: &str) -> Result<String, String> {
    match text.parse::<http::uri::Authority>() {
        Ok(parsed) if !parsed.host().is_empty() && !text.contains('@') => Ok(text.to_ascii_lowercase()),
        _ => Err("write a host, with a port if it needs one: api.example.com or api.example.com:8443".into()),
    }
}

fn field(text: &str) -> Result<String, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map(|name| name.as_str().to_owned())
        .map_err(|_| "is not a field's name (RFC 9110, section 5.1)".into())
}

fn origin(text: &str) -> Result<Origin, String> {
    let wrong = "write an origin such as https://app.example.com, https://*.example.com or *".to_owned();
    if text == "*" {
        return Ok(Origin::Any);
    }
    let text = text.to_ascii_lowercase();
    let Some((scheme, host)) = text.split_once("://") else { return Err(wrong) };
    let bare = host.strip_prefix("*.").unwrap_or(host);
    if scheme.is_empty() || bare.contains(['*', '/', '@']) || bare.parse::<http::uri::Authority>().is_err() {
        return Err(wrong);
    }
    Ok(match host.strip_prefix('*') {
        Some(after) => Origin::Wildcard(format!("{scheme}://"), after.to_owned()),
        None => Origin::Exact(text),
    })
}

fn media_type(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((kind, sub)) if token(kind).is_ok() && token(sub).is_ok() && kind != "*" => Ok(text.to_ascii_lowercase()),
        _ => Err("write a media type such as application/json or text/*".into()),
    }
}
