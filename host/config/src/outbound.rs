//! `filters.NAME.http:`: which services a filter may call, and how much.
//!
//! An origin without an upstream goes direct, through an upstream that the configuration makes of
//! it (`upstreams/direct.rs`). This module does not know: how a call is made.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;
use witgate_http::semantics::origin::Origin;
use witgate_http::semantics::public_address::is_public;
use witgate_http::text::quoted;

use crate::values::MILLISECOND;
use crate::yaml::Section;

const ORIGINS_MAX: usize = 64;
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The largest body of a request or response. It has to fit into the memory of an instance.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What a filter may call. The default is nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FilterHttp {
    /// By the normal form of the origin. At most 64.
    pub origins: BTreeMap<String, Destination>,
    /// Calls that one handler may make. Default 4; 1 to 64.
    pub calls: u32,
    /// How long one handler may wait for all its calls together. Default 1 s; 1 ms to 60 s. It does
    /// not count against the filter's timeout.
    pub wait: Duration,
    /// The largest body of a request, in bytes. Default 64 KiB; at most 8 MiB.
    pub request_bytes: usize,
    /// The largest body of a response, in bytes. Default 1 MiB; at most 8 MiB.
    pub response_bytes: usize,
}

/// Where the calls of an origin go.
#[derive(Debug, Clone, PartialEq)]
pub enum Destination {
    /// To an entry of `upstreams:`.
    Upstream(String),
    /// To public addresses of the origin's host.
    Direct(Origin),
}

impl FilterHttp {
    pub(crate) fn read(section: &Section) -> Self {
        let size = |key| section.size(key, 1, BODY_BYTES_MAX);
        Self {
            origins: read_origins(section),
            calls: section.number("calls", 1, 64).unwrap_or(4),
            wait: section.duration("wait", MILLISECOND, WAIT_MAX).unwrap_or(Duration::from_secs(1)),
            request_bytes: size("request_bytes").unwrap_or(64 << 10),
            response_bytes: size("response_bytes").unwrap_or(1 << 20),
        }
    }

    /// The upstream of each origin, by the origin's normal form.
    pub fn upstreams(&self) -> impl Iterator<Item = (&str, &str)> {
        self.origins.iter().map(|(origin, destination)| match destination {
            Destination::Upstream(name) => (origin.as_str(), name.as_str()),
            Destination::Direct(_) => (origin.as_str(), origin.as_str()),
        })
    }

    /// The origins of direct calls.
    pub(crate) fn direct(&self) -> impl Iterator<Item = &Origin> {
        self.origins.values().filter_map(|destination| match destination {
            Destination::Upstream(_) => None,
            Destination::Direct(origin) => Some(origin),
        })
    }
}

fn read_origins(section: &Section) -> BTreeMap<String, Destination> {
    let all = section.free_form("origins");
    if all.entries().len() > ORIGINS_MAX {
        all.error(all.line(), "", format!("{} origins: at most {ORIGINS_MAX} are allowed", all.entries().len()));
    }
    let mut origins = BTreeMap::new();
    for (key, node) in all.entries().iter().take(ORIGINS_MAX) {
        let destination = all.child(&key.text, node, |entry| {
            let upstream = entry.string("upstream");
            let origin = match parse_origin(&key.text, upstream.is_none()) {
                Ok(origin) => origin,
                Err(why) => {
                    all.error(key.line, &key.text, why);
                    return None;
                }
            };
            let name = origin.to_string();
            Some((name, upstream.map_or(Destination::Direct(origin), Destination::Upstream)))
        });
        let Some((origin, destination)) = destination else { continue };
        if origins.insert(origin, destination).is_some() {
            all.error(key.line, &key.text, "is listed twice, in another spelling");
        }
    }
    origins
}

fn parse_origin(text: &str, is_direct: bool) -> Result<Origin, String> {
    let origin = Origin::parse(text).map_err(|why| {
        let host = text.parse::<Uri>().ok().and_then(|url| Origin::of(&url).ok());
        match host {
            Some(origin) => format!("{why}: write {origin}"),
            None => format!("{} is not an origin such as https://api.example.com: {why}", quoted(text)),
        }
    })?;
    let is_private = origin.ip().is_some_and(|address| !is_public(address));
    if is_direct && (is_private || origin.host == "localhost" || origin.host.ends_with(".localhost")) {
        return Err(
            "is not a public address, and direct calls go to public addresses only: define an upstream with this endpoint, and write {upstream: NAME}"
                .into(),
        );
    }
    Ok(origin)
}
