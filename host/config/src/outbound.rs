//! `filters.NAME.http:`: which services a filter may call, and how much.
//!
//! An origin without an upstream goes direct, through an upstream that the configuration makes of
//! it (`upstreams/direct.rs`). This module does not know: how a call is made.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use witgate_http::semantics::origin::Origin;
use witgate_http::semantics::public_address::is_public;
use witgate_http::text::quoted;

use crate::values::{MILLISECOND, network};
use crate::yaml::Section;

const ORIGINS_MAX: usize = 64;
const NETWORKS_MAX: usize = 16;
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
    /// To the origin's host.
    Direct(Direct),
}

/// Calls that go to the host of their origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Direct {
    /// The origin.
    pub origin: Origin,
    /// The addresses beside the public ones. Default none; at most 16 networks.
    pub allow: Vec<IpNet>,
}

impl Direct {
    /// The name of the upstream that the configuration makes of it. Another `allow` is another
    /// upstream, so that no filter reaches what only another one was granted.
    pub fn upstream(&self) -> String {
        match &self.allow[..] {
            [] => self.origin.to_string(),
            networks => {
                let networks: Vec<String> = networks.iter().map(IpNet::to_string).collect();
                format!("{} ({})", self.origin, networks.join(", "))
            }
        }
    }
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
    pub fn upstreams(&self) -> impl Iterator<Item = (&str, String)> {
        self.origins.iter().map(|(origin, destination)| match destination {
            Destination::Upstream(name) => (origin.as_str(), name.clone()),
            Destination::Direct(direct) => (origin.as_str(), direct.upstream()),
        })
    }

    /// The direct calls.
    pub(crate) fn direct(&self) -> impl Iterator<Item = &Direct> {
        self.origins.values().filter_map(|destination| match destination {
            Destination::Upstream(_) => None,
            Destination::Direct(direct) => Some(direct),
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
            let allow = entry.list("allow", network);
            if upstream.is_some() && !allow.is_empty() {
                entry.error_at(&["allow"], "has no effect with upstream, whose endpoints may be anywhere: remove it");
            }
            if allow.len() > NETWORKS_MAX {
                entry.error_at(&["allow"], format!("has more than {NETWORKS_MAX} networks"));
            }
            let origin = match parse_origin(&key.text, upstream.is_none().then_some(&allow)) {
                Ok(origin) => origin,
                Err(why) => {
                    all.error(key.line, &key.text, why);
                    return None;
                }
            };
            let name = origin.to_string();
            Some((name, upstream.map_or(Destination::Direct(Direct { origin, allow }), Destination::Upstream)))
        });
        let Some((origin, destination)) = destination else { continue };
        if origins.insert(origin, destination).is_some() {
            all.error(key.line, &key.text, "is listed twice, in another spelling");
        }
    }
    origins
}

/// `direct` has the networks that direct calls may reach; `None` if the calls go to an upstream.
fn parse_origin(text: &str, direct: Option<&Vec<IpNet>>) -> Result<Origin, String> {
    let origin = Origin::parse(text).map_err(|why| {
        let host = text.parse::<Uri>().ok().and_then(|url| Origin::of(&url).ok());
        match host {
            Some(origin) => format!("{why}: write {origin}"),
            None => format!("{} is not an origin such as https://api.example.com: {why}", quoted(text)),
        }
    })?;
    let Some(allow) = direct else { return Ok(origin) };
    let is_refused = match origin.ip() {
        Some(address) => !is_public(address) && !allow.iter().any(|network| network.contains(&address)),
        None => allow.is_empty() && (origin.host == "localhost" || origin.host.ends_with(".localhost")),
    };
    if is_refused {
        return Err(
            "is not a public address, and direct calls go to public addresses only: define an upstream with this endpoint and write {upstream: NAME}, or write {allow: [NETWORK]}"
                .into(),
        );
    }
    Ok(origin)
}
