//! `rate_limit:` of a route.
//!
//! This module does not know: how units are counted, where.

use std::time::Duration;

use http::HeaderName;

use crate::values::{MILLISECOND, header_name, token};
use crate::yaml::{Section, Value};

const UNITS_MAX: u32 = 1_000_000;
const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);
const NOTE_NAME_BYTES_MAX: usize = 64;

/// A limit on the requests of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// What requests are counted by. Default the client's address.
    pub key: RateKey,
    /// How they are counted. Default sliding window.
    pub algorithm: RateAlgorithm,
    /// Requests in a window. 1 to 1,000,000.
    pub limit: u32,
    /// The length of the window, 1 ms to 744 h. Default 1 s.
    pub window: Duration,
    /// Requests that a token bucket holds. Default `limit`; 1 to 1,000,000.
    pub burst: Option<u32>,
    /// A name in `stores:`. Default: this gateway's memory.
    pub store: Option<String>,
    /// Requests that a gateway takes from the store at once and counts by itself, at most `limit`.
    /// Default none: it asks for each request. 2 to 1,000,000; sliding window only.
    pub lease: Option<u32>,
}

/// What requests are counted by. Requests without the header, cookie or note are counted by their
/// client's address.
#[derive(Debug, Clone, PartialEq)]
pub enum RateKey {
    /// `client_ip`: the address of the client, an IPv6 address by its /64 network.
    ClientIp,
    /// `{header: x-api-key}`: the value of a header field.
    Header(HeaderName),
    /// `{cookie: session}`: the value of a cookie.
    Cookie(String),
    /// `{note: jwt.sub}`: a note that a policy of the route has set before.
    Note(String),
}

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateAlgorithm {
    /// `sliding_window`.
    SlidingWindow,
    /// `token_bucket`.
    TokenBucket,
}

impl RateLimit {
    pub(crate) fn read(section: &Section) -> Self {
        section.require("limit", "write the number of requests in a window");
        let choices = [("sliding_window", RateAlgorithm::SlidingWindow), ("token_bucket", RateAlgorithm::TokenBucket)];
        let algorithm = section.choice("algorithm", &choices, "write sliding_window or token_bucket");
        let algorithm = algorithm.unwrap_or(RateAlgorithm::SlidingWindow);
        if algorithm == RateAlgorithm::TokenBucket && section.has("lease") {
            section
                .error_at(&["lease"], "has no effect on a token bucket: remove it, or set algorithm: sliding_window");
        }
        if algorithm == RateAlgorithm::SlidingWindow && section.has("burst") {
            section
                .error_at(&["burst"], "has no effect on a sliding window: remove it, or set algorithm: token_bucket");
        }
        Self {
            key: RateKey::read(section),
            algorithm,
            limit: section.number("limit", 1, UNITS_MAX).unwrap_or(1),
            window: section.duration("window", MILLISECOND, WINDOW_MAX).unwrap_or(Duration::from_secs(1)),
            burst: section.number("burst", 1, UNITS_MAX),
            store: section.string("store"),
            lease: read_lease(section),
        }
    }
}

/// Reads `lease:`, which needs a shared store.
pub(crate) fn read_lease(section: &Section) -> Option<u32> {
    let lease = section.number("lease", 2, UNITS_MAX);
    if lease.is_some() && !section.has("store") {
        section
            .error_at(&["lease"], "has no effect without store, because memory is asked for each request: remove it");
    }
    lease
}

impl RateKey {
    fn read(rate_limit: &Section) -> Self {
        let advice = "write client_ip, {header: NAME}, {cookie: NAME} or {note: NAME}";
        match rate_limit.get("key").map(|node| &node.value) {
            None => Self::ClientIp,
            Some(Value::Map(entries)) if entries.len() == 1 => rate_limit.nested("key", |key| {
                let header = key.scalar("header", header_name);
                if header.as_ref().is_some_and(|name| name == "x-forwarded-for" || name == "forwarded") {
                    let message = "behind a trusted proxy, clients choose the beginning of this field, and so escape \
                                   the limit: write client_ip, which is the client that trusted_proxies name";
                    key.warn_at(&["header"], message);
                }
                let header = header.map(Self::Header);
                let cookie = key.scalar("cookie", token).map(Self::Cookie);
                let note = key.scalar("note", note_name).map(Self::Note);
                header.or(cookie).or(note).unwrap_or(Self::ClientIp)
            }),
            Some(Value::Map(_)) => {
                rate_limit.error_at(&["key"], advice);
                Self::ClientIp
            }
            Some(_) => rate_limit.choice("key", &[("client_ip", Self::ClientIp)], advice).unwrap_or(Self::ClientIp),
        }
    }
}

fn note_name(text: &str) -> Result<String, String> {
    if (1..=NOTE_NAME_BYTES_MAX).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("the name of a note has 1 to {NOTE_NAME_BYTES_MAX} bytes"))
}
