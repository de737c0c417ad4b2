//! `cors:` of a route: which other sites browsers may let use it.
//!
//! This module does not know: how a preflight request is answered.

use std::time::Duration;

use http::uri::Authority;

use crate::values::{header_name, method};
use crate::yaml::Section;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Which other sites browsers may let use a route (the CORS protocol of the Fetch standard).
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
    /// Whether requests may carry cookies. If so, no list may contain `*`.
    pub credentials: bool,
    /// How long browsers cache the response to a preflight request. Default 10 min; at most 24 h.
    pub max_age: Duration,
}

/// A site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`.
    Any,
    /// `https://app.example.com`.
    Exact(String),
    /// `https://*.example.com`: the text before and after the star.
    Wildcard(String, String),
}

impl Cors {
    pub(crate) fn read(section: &Section) -> Self {
        section.require("origins", "write origins such as https://app.example.com");
        let names = |key| section.list(key, |text| if text == "*" { Ok(text.into()) } else { field_name(text) });
        let mut methods = section.list("methods", |text| if text == "*" { Ok(text.into()) } else { method(text) });
        if !section.has("methods") {
            methods = ["GET", "HEAD", "POST"].map(str::to_owned).into();
        }
        let cors = Self {
            origins: section.list("origins", parse_origin),
            methods,
            headers: names("headers"),
            expose: names("expose"),
            credentials: section.bool("credentials").unwrap_or(false),
            max_age: section.duration("max_age", Duration::ZERO, DAY).unwrap_or(Duration::from_secs(600)),
        };
        if cors.credentials {
            cors.reject_wildcards(section);
        }
        cors
    }

    fn reject_wildcards(&self, section: &Section) {
        let has_star = |names: &[String]| names.iter().any(|name| name == "*");
        let lists = [
            ("origins", self.origins.contains(&Origin::Any)),
            ("methods", has_star(&self.methods)),
            ("headers", has_star(&self.headers)),
            ("expose", has_star(&self.expose)),
        ];
        for (key, _) in lists.into_iter().filter(|(_, has_star)| *has_star) {
            let message =
                "* is not allowed with credentials: true, because any site could act as the user: write names";
            section.error(section.line(), key, message);
        }
    }
}

fn field_name(text: &str) -> Result<String, String> {
    header_name(text).map(|name| name.as_str().to_owned())
}

/// The default port of a scheme, with its colon.
fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "https" => Some(":443"),
        "http" => Some(":80"),
        _ => None,
    }
}

fn parse_origin(text: &str) -> Result<Origin, String> {
    let invalid = || "write an origin such as https://app.example.com, https://*.example.com or *".to_owned();
    if text == "*" {
        return Ok(Origin::Any);
    }
    let text = text.to_ascii_lowercase();
    let (scheme, host) = text.split_once("://").ok_or_else(invalid)?;
    let name = host.strip_prefix("*.").unwrap_or(host);
    if scheme.is_empty() || name.contains(['*', '/', '@']) || name.parse::<Authority>().is_err() {
        return Err(invalid());
    }
    if let Some(bare) = default_port(scheme).and_then(|port| text.strip_suffix(port)) {
        return Err(format!("browsers send an origin without the default port: write {bare}"));
    }
    Ok(match host.strip_prefix('*') {
        Some(after) => Origin::Wildcard(format!("{scheme}://"), after.to_owned()),
        None => Origin::Exact(text),
    })
}
