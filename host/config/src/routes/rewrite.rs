//! `rewrite:` of a route: changes to the request that the upstream receives.
//!
//! This module does not know: how a request is changed.

use http::HeaderValue;

use super::conditions::{Pattern, pattern};
use crate::values::{authority, path};
use crate::yaml::Section;

/// Changes to the request that the upstream receives. Filters see the request of the client.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    /// `None` keeps the path. The query always stays.
    pub path: Option<PathRewrite>,
    /// The `host` field, with an optional port.
    pub host: Option<HeaderValue>,
}

/// A new path.
#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// `prefix: /new`: replaces the prefix that the route matches.
    Prefix(String),
    /// `path: {regex: "^/v[0-9]+/(.*)", replace: "/$1"}`: replaces the first match. A path without
    /// a match stays.
    Regex(Pattern, String),
}

impl Rewrite {
    pub(crate) fn read(section: &Section) -> Self {
        let prefix = section.scalar("prefix", path).map(PathRewrite::Prefix);
        if prefix.is_some() && section.has("path") {
            section.error(section.line(), "path", "a rewrite has prefix or path, not both");
        }
        let regex = section.optional("path", |own| {
            if own.has("regex") != own.has("replace") {
                let message = "needs regex and replace: {regex: \"^/v[0-9]+/(.*)\", replace: \"/$1\"}";
                section.error(own.line(), "path", message);
            }
            let regex = own.scalar("regex", pattern);
            regex.zip(own.string("replace")).map(|(regex, replace)| PathRewrite::Regex(regex, replace))
        });
        let host = section.scalar("host", authority).and_then(|host| HeaderValue::try_from(host).ok());
        Self { path: prefix.or(regex.flatten()), host }
    }
}
