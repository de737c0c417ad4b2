//! `match:` of a route and of a filter in a route: conditions on a request.
//!
//! Regular expressions are compiled here, once, with a bound on their compiled size. The `regex`
//! crate matches in linear time, so no request can make an expression slow. This module does not
//! know: how a request is represented, which of several matching routes wins.

use http::HeaderName;
use regex::{Regex, RegexBuilder};

use crate::values::{header_name, method, path};
use crate::yaml::{Node, Section, Value};

const PATTERN_CHARS_MAX: usize = 1024;
/// Bounds the compiled expression, and its cache while it runs.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Conditions on a request. All must hold; an empty `Match` always holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Match {
    /// One of these methods; empty for any.
    pub methods: Vec<String>,
    /// `None` for any path.
    pub path: Option<PathMatch>,
    /// All of these. A condition holds if one of the lines of its field fits.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// All of these. A condition holds if one of the parameters of its name fits. Names and values
    /// are percent-decoded, and `+` is a space.
    pub query: Vec<(String, ValueMatch)>,
}

/// A condition on the path in its normal form.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// `{exact: /v1}`.
    Exact(String),
    /// `/v1`: whole segments, so it matches `/v1` and `/v1/x` but not `/v10`.
    Prefix(String),
    /// `{regex: "^/v[0-9]+/"}`: matches anywhere unless anchored.
    Regex(Pattern),
}

/// A condition on a header field or a query parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatch {
    /// `{present: true}`.
    Present,
    /// `{present: false}`.
    Absent,
    /// `value`.
    Exact(String),
    /// `{regex: "^v"}`: matches anywhere unless anchored.
    Regex(Pattern),
}

/// A compiled regular expression. Two are equal if their texts are equal.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl Pattern {
    /// The most bytes of a text that the gateway matches against an expression: a path, a query or
    /// a header's line.
    pub const TEXT_BYTES_MAX: usize = 8 << 10;
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Match {
    pub(crate) fn read(section: &Section) -> Self {
        let mut headers = named_values(section, "headers", header_name);
        // `header: x-foo` is short for `headers: {x-foo: {present: true}}`.
        headers.extend(section.scalar("header", header_name).map(|name| (name, ValueMatch::Present)));
        Self {
            methods: section.list("methods", method),
            path: PathMatch::read(section),
            headers,
            query: named_values(section, "query", |name| Ok(name.to_owned())),
        }
    }
}

impl PathMatch {
    fn read(conditions: &Section) -> Option<Self> {
        if !matches!(conditions.get("path")?.value, Value::Map(_)) {
            return conditions.scalar("path", path).map(Self::Prefix);
        }
        conditions.nested("path", |section| {
            if ["exact", "prefix", "regex"].into_iter().filter(|key| section.has(key)).count() != 1 {
                let message = "write a prefix, or one of {exact: /a}, {prefix: /a}, {regex: \"^/a\"}";
                conditions.error(section.line(), "path", message);
            }
            let exact = section.scalar("exact", path).map(Self::Exact);
            let prefix = section.scalar("prefix", path).map(Self::Prefix);
            let regex = section.scalar("regex", pattern).map(Self::Regex);
            exact.or(prefix).or(regex)
        })
    }
}

impl ValueMatch {
    fn read<'a>(parent: &Section<'a>, key: &str, node: &'a Node) -> Option<Self> {
        match &node.value {
            Value::Scalar { .. } if !node.is_null() => Self::read_exact(parent, key, node),
            _ if node.reference().is_some() => Self::read_exact(parent, key, node),
            Value::Map(entries) if entries.len() == 1 => parent.child(key, node, |section| {
                let exact = section.string("exact").map(Self::Exact);
                let regex = section.scalar("regex", pattern).map(Self::Regex);
                let present = section.bool("present").map(|yes| if yes { Self::Present } else { Self::Absent });
                exact.or(regex).or(present)
            }),
            _ => {
                let message = "write a value, or one of {exact: a}, {present: true}, {regex: \"^a\"}";
                parent.error(node.line, key, message);
                None
            }
        }
    }

    fn read_exact(parent: &Section, key: &str, node: &Node) -> Option<Self> {
        parent.value(key, node, |text| Ok(text.to_owned())).map(Self::Exact)
    }
}

/// A regular expression within the bounds.
pub(crate) fn pattern(text: &str) -> Result<Pattern, String> {
    if text.is_empty() || text.len() > PATTERN_CHARS_MAX {
        return Err(format!("a regular expression has 1 to {PATTERN_CHARS_MAX} characters"));
    }
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
    built.map(Pattern).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "is too large when compiled: use smaller repetitions".to_owned(),
        // The parser's message has several lines; the last one states the error.
        error => error.to_string().lines().last().unwrap_or("is not a regular expression").trim().to_owned(),
    })
}

/// The mapping `key` from names to conditions.
fn named_values<N>(
    section: &Section,
    key: &'static str,
    parse_name: impl Fn(&str) -> Result<N, String>,
) -> Vec<(N, ValueMatch)> {
    let values = section.free_form(key);
    let mut conditions = vec![];
    for (entry, node) in values.entries() {
        match parse_name(&entry.text) {
            Ok(name) => {
                conditions.extend(ValueMatch::read(&values, &entry.text, node).map(|condition| (name, condition)));
            }
            Err(why) => values.error(entry.line, &entry.text, why),
        }
    }
    conditions
}
