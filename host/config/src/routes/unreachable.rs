//! Finds routes that no request reaches, because other routes take all of their requests.
//!
//! A route covers another one if it has no condition that the other lacks. Covering alone is not
//! enough: the gateway prefers the more specific of two routes. So a route is unreachable if a
//! route that comes first in [`Match::specificity`] or in the file covers it. Regular expressions
//! are compared by their literal beginning only. This module does not know: requests.

use super::Route;
use super::conditions::{Match, PathMatch};
use crate::yaml::Section;

/// Comparing routes takes quadratic time, so a file with more routes is not examined.
const ROUTES_MAX: usize = 4096;

/// Reports duplicates as errors, and other routes that no request reaches as warnings.
pub(crate) fn check(top: &Section, routes: &[Route]) {
    if routes.len() > ROUTES_MAX {
        let message =
            format!("more than {ROUTES_MAX} routes are not compared: duplicate and unreachable ones stay unnoticed");
        top.warn_at(&["routes"], message);
        return;
    }
    for (index, route) in routes.iter().enumerate() {
        let path = format!("routes[{index}]");
        if let Some(first) = routes[..index].iter().find(|first| is_same(first, route)) {
            let message = format!(
                "{} has the same conditions as {}, which takes all requests: remove one of the two, or add a condition",
                route.name, first.name
            );
            top.error_at(&[&path, "match"], message);
            continue;
        }
        let mut others = routes.iter().enumerate().filter(|(other, _)| *other != index);
        if let Some((_, winner)) = others.find(|(other, winner)| precedes((*other, winner), (index, route))) {
            let message = format!(
                "no request reaches {}: {} matches the same requests and comes first in the order of precedence",
                route.name, winner.name
            );
            top.warn_at(&[&path, "match"], message);
        }
    }
    for (index, route) in routes.iter().enumerate() {
        if let Some(advice) = route.matches.path.as_ref().and_then(suspicious_path) {
            top.warn_at(&[&format!("routes[{index}]"), "match", "path"], advice);
        }
    }
}

fn is_same(a: &Route, b: &Route) -> bool {
    covers(a, b) && covers(b, a)
}

/// Whether `a` takes every request that `b` matches.
fn precedes((at, a): (usize, &Route), (index, b): (usize, &Route)) -> bool {
    // A route for another host of higher precedence does not cover: it matches fewer hosts.
    a.host == b.host && (a.matches.specificity(), at) < (b.matches.specificity(), index) && covers(a, b)
}

/// Whether `a` has no condition that `b` lacks.
pub(super) fn covers(a: &Route, b: &Route) -> bool {
    let (wide, narrow) = (&a.matches, &b.matches);
    let has_methods = wide.methods.is_empty()
        || (!narrow.methods.is_empty() && narrow.methods.iter().all(|method| wide.methods.contains(method)));
    a.host == b.host
        && has_methods
        && covers_path(wide.path.as_ref(), narrow.path.as_ref())
        && wide.headers.iter().all(|condition| narrow.headers.contains(condition))
        && wide.query.iter().all(|condition| narrow.query.contains(condition))
}

fn covers_path(wide: Option<&PathMatch>, narrow: Option<&PathMatch>) -> bool {
    let below = |path: &str, prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
    };
    match (wide, narrow) {
        (None, _) => true,
        (Some(PathMatch::Prefix(prefix)), _) if prefix == "/" => true,
        (Some(PathMatch::Prefix(prefix)), Some(PathMatch::Prefix(path) | PathMatch::Exact(path))) => {
            below(path, prefix)
        }
        (Some(PathMatch::Prefix(prefix)), Some(PathMatch::Regex(pattern))) => {
            let literal = literal_start(pattern.0.as_str());
            below(literal, prefix) && literal.len() > prefix.len()
        }
        (Some(wide), Some(narrow)) => wide == narrow,
        (Some(_), None) => false,
    }
}

/// The text with which every match begins: `/v1/` of `^/v1/[0-9]+`. Empty if that is not certain.
fn literal_start(pattern: &str) -> &str {
    let Some(rest) = pattern.strip_prefix('^').filter(|rest| !rest.contains('|')) else { return "" };
    let is_literal = |c: char| c.is_ascii_alphanumeric() || "/-_~%".contains(c);
    let end = rest.find(|c: char| !is_literal(c)).unwrap_or(rest.len());
    // A quantifier applies to the last character.
    let end = if rest[end..].starts_with(['?', '*', '{']) { end.saturating_sub(1) } else { end };
    &rest[..end]
}

/// Advice about a path that looks like another product's pattern, or that no path matches.
fn suspicious_path(path: &PathMatch) -> Option<String> {
    match path {
        PathMatch::Regex(pattern) => {
            let text = pattern.0.as_str();
            if text.trim_end_matches('$').ends_with("/*") {
                let message = "/* repeats the slash in an expression, and any text after it is .*: \
                               write a prefix such as /api, which takes all below it";
                return Some(message.to_owned());
            }
            let literal = literal_start(text);
            (!literal.is_empty() && !literal.starts_with('/'))
                .then(|| "no request matches: every path begins with /, so write ^/ at the beginning".to_owned())
        }
        PathMatch::Exact(path) | PathMatch::Prefix(path) => {
            path.split('/').any(|segment| segment.len() > 1 && segment.starts_with(':')).then(|| {
                format!(
                    "{path}: a segment such as :id matches only itself; for any text write {{regex: \"^/…/[^/]+$\"}}"
                )
            })
        }
    }
}

impl Match {
    /// The order of precedence among routes of one host, the most specific first: by path, then by
    /// the number of conditions. Of equal routes the first in the file wins.
    pub fn specificity(&self) -> impl Ord + use<> {
        let path = match &self.path {
            Some(PathMatch::Exact(_)) => (0, std::cmp::Reverse(0)),
            Some(PathMatch::Prefix(prefix)) if prefix != "/" => (1, std::cmp::Reverse(prefix.len())),
            Some(PathMatch::Regex(_)) => (2, std::cmp::Reverse(0)),
            // Any path.
            Some(PathMatch::Prefix(_)) | None => (3, std::cmp::Reverse(0)),
        };
        (path, std::cmp::Reverse(usize::from(!self.methods.is_empty()) + self.headers.len() + self.query.len()))
    }
}
