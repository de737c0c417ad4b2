//! What a request must look like: the `match:` of a route and of a filter in a route's chain.
//!
//! Regular expressions are compiled here, once, with a bound on what they may become: they run in linear time, so no request can make one slow.
//! Must not know: how a request is represented, which route wins (`stage/route.rs`).

use http::HeaderName;
use regex::{Regex, RegexBuilder};

use super::read::Section;
use super::sections::{path, token};
use super::tree::{Node, Value};

const PATTERN_CHARS_MAX: usize = 1024;
/// Bytes of a compiled expression, and of what it caches while it runs.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// All given parts must hold; an empty one always does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Match {
    /// Any of these methods; empty for any.
    pub methods: Vec<String>,
    /// None for any.
    pub path: Option<PathMatch>,
    /// Each of them, in any of the field's lines.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Each of them, in any of the parameters of that name; percent-decoded, `+` is a space.
    pub query: Vec<(String, ValueMatch)>,
}

/// What a path must be. Paths are compared in their normal form (`conduct/path.rs`).
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// `{exact: /v1}`.
    Exact(String),
    /// `/v1`: by whole segments, so `/v1` and `/v1/x` but not `/v10`.
    Prefix(String),
    /// `{regex: "^/v[0-9]+/"}`: found anywhere unless anchored.
    Regex(Pattern),
}

/// What a field or a parameter must be.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatch {
    /// `{present: true}`.
    Present,
    /// `{present: false}`.
    Absent,
    /// `value`.
    Exact(String),
    /// `{regex: "^v"}`: found anywhere unless anchored.
    Regex(Pattern),
}

/// A compiled regular expression; two are equal if their texts are.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// Reads the parts of a `match:` that routes and filters share.
pub(super) fn conditions(when: &Section) -> Match {
    let mut headers = values(when, "headers", |name| {
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is not a field's name (RFC 9110, section 5.1)".to_owned())
    });
    // The short form: a field that must be there.
    let header = when.scalar("header", |text| {
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| "is not a field's name (RFC 9110, section 5.1)".into())
    });
    headers.extend(header.map(|name| (name, ValueMatch::Present)));
    Match {
        methods: when.list("methods", token),
        path: path_match(when),
        headers,
        query: values(when, "query", |name| Ok(name.to_owned())),
    }
}

/// A regular expression within the bounds.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    if text.is_empty() || text.len() > PATTERN_CHARS_MAX {
        return Err(format!("a regular expression has 1 to {PATTERN_CHARS_MAX} characters"));
    }
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
    built.map(Pattern).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "is too large when compiled: use smaller repetitions".to_owned(),
        // The parser draws its error over several lines; the last one says it.
        error => error.to_string().lines().last().unwrap_or("is no regular expression").trim().to_owned(),
    })
}

fn path_match(when: &Section) -> Option<PathMatch> {
    if !matches!(when.get("path")?.value, Value::Map(_)) {
        return when.scalar("path", path).map(PathMatch::Prefix);
    }
    let own = when.section("path");
    let exact = own.scalar("exact", path).map(PathMatch::Exact);
    let prefix = own.scalar("prefix", path).map(PathMatch::Prefix);
    let regex = own.scalar("regex", pattern).map(PathMatch::Regex);
    let given = ["exact", "prefix", "regex"].into_iter().filter(|key| own.get(key).is_some()).count();
    if given != 1 {
        when.error(own.line, "path", "write a prefix, or one of {exact: /a}, {prefix: /a}, {regex: \"^/a\"}");
    }
    own.finish();
    exact.or(prefix).or(regex)
}

fn values<N>(when: &Section, key: &'static str, name: impl Fn(&str) -> Result<N, String>) -> Vec<(N, ValueMatch)> {
    let own = when.section(key);
    let mut found = vec![];
    for (entry, node) in own.entries() {
        match name(&entry.text) {
            Ok(name) => found.extend(value(&own, &entry.text, node).map(|value| (name, value))),
            Err(why) => own.error(entry.line, &entry.text, why),
        }
    }
    found
}

fn value(parent: &Section, key: &str, node: &Node) -> Option<ValueMatch> {
    const FORMS: &str = "write a value, or one of {exact: a}, {present: true}, {regex: \"^a\"}";
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(ValueMatch::Exact(text.clone())),
        Value::Map(entries) if entries.len() == 1 => {
            let own = Section::new(Some(node), parent.at(key), parent.errors);
            let exact = own.text("exact").map(ValueMatch::Exact);
            let regex = own.scalar("regex", pattern).map(ValueMatch::Regex);
            let present = own.bool("present").map(|yes| if yes { ValueMatch::Present } else { ValueMatch::Absent });
            own.finish();
            exact.or(regex).or(present)
        }
        _ => {
            parent.error(node.line, key, FORMS);
            None
        }
    }
}
