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
            let (regex, replace) = regex.zip(own.string("replace"))?;
            if let Err(why) = check_replacement(&regex, &replace) {
                own.error_at(&["replace"], format!("{replace:?}: {why}"));
            }
            Some(PathRewrite::Regex(regex, replace))
        });
        let host = section.scalar("host", authority).and_then(|host| HeaderValue::try_from(host).ok());
        Self { path: prefix.or(regex.flatten()), host }
    }
}

/// Checks that each group that `replace` names exists, and that the new path begins with `/`. The
/// syntax is that of the crate `regex`: `$1`, `$name`, `${1}`, and `$$` for a dollar sign.
fn check_replacement(pattern: &Pattern, replace: &str) -> Result<(), String> {
    let groups = pattern.0.captures_len() - 1;
    let digit = replace.match_indices('\\').find_map(|(at, _)| replace[at + 1..].chars().next());
    if let Some(digit) = digit {
        let digit = if digit.is_ascii_digit() { digit } else { '1' };
        return Err(format!("a path has no backslash; a group is written ${digit}"));
    }
    let mut rest = replace;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let is_braced = rest.starts_with('{');
        let name = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').map_or("", |(name, _)| name),
            None => &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())],
        };
        let exists = match name.parse::<usize>() {
            Ok(number) => number <= groups,
            Err(_) => pattern.0.capture_names().flatten().any(|known| known == name),
        };
        if exists || (name.is_empty() && !is_braced) {
            continue;
        }
        let digits = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        return Err(if !is_braced && digits > 0 && digits < name.len() {
            format!(
                "${name} is the group named {name:?}, which does not exist: write ${{{}}}{}",
                &name[..digits],
                &name[digits..]
            )
        } else {
            format!(
                "the group {name:?} does not exist; the expression has {groups} groups: write one of them, or $$ for a dollar sign"
            )
        });
    }
    if pattern.0.as_str().starts_with("^/") && !replace.starts_with(['/', '$']) {
        return Err(format!("the new path does not begin with /: write /{replace}"));
    }
    Ok(())
}
