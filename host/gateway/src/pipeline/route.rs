//! Finds the route of a request: the most specific route whose conditions all hold.
//!
//! The order of precedence:
//! 1. an exact host, then a wildcard (longer first), then any host;
//! 2. an exact path, then a prefix (longer first), then a regular expression, then any path (`/`);
//! 3. more conditions (methods, fields, query) before fewer;
//! 4. the order in the configuration.
//!
//! The routes are sorted in this order once, and each request searches the list from the top. With
//! the dozens of routes that a gateway has, comparing a few prefixes costs less than hashing. A
//! host is compared once for all of its routes. Nothing is allocated unless a route asks for a
//! query parameter that the client encoded. This module does not know: filters, upstreams.

mod regex_input;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use http::{HeaderMap, HeaderValue, Method, header};

use self::regex_input::Examined;
use witgate_config::{Match, PathMatch, Route, ValueMatch};
use witgate_http::error::Error;
use witgate_http::semantics::fields::has_member;
use witgate_runtime::exchange::Request;

/// Finds the route of a request.
pub struct Router {
    /// Most specific first.
    hosts: Vec<HostRoutes>,
}

/// The routes of one host.
struct HostRoutes {
    host: HostPattern,
    /// Most specific first.
    entries: Vec<Entry>,
    /// By the regular expressions of all its routes.
    examined: Examined,
}

struct Entry {
    when: Match,
    /// Whether the route answers preflights: a preflight then matches if the request that it asks
    /// for would match.
    answers_preflight: bool,
    index: usize,
}

#[derive(PartialEq)]
enum HostPattern {
    Exact(String),
    /// `.example.com`: any name that ends with it.
    Suffix(String),
    Any,
}

impl Router {
    /// Sorts the routes.
    pub fn new(routes: &[Route]) -> Self {
        let mut hosts: Vec<HostRoutes> = vec![];
        for (index, route) in routes.iter().enumerate() {
            let entry = Entry { when: route.matches.clone(), answers_preflight: route.cors.is_some(), index };
            let host = HostPattern::new(route.host.as_deref());
            let at = hosts.iter().position(|own| own.host == host).unwrap_or_else(|| {
                hosts.push(HostRoutes { host, entries: vec![], examined: Examined::default() });
                hosts.len() - 1
            });
            hosts[at].entries.push(entry);
            hosts[at].examined.add(route);
        }
        hosts.sort_by_key(|own| match &own.host {
            HostPattern::Exact(_) => (0, Reverse(0)),
            HostPattern::Suffix(suffix) => (1, Reverse(suffix.len())),
            HostPattern::Any => (2, Reverse(0)),
        });
        for own in &mut hosts {
            own.entries.sort_by_key(|entry| (entry.when.specificity(), entry.index));
        }
        Self { hosts }
    }

    /// Refuses a request whose text is too long for the regular expressions of its host's routes.
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        let host = without_port(request.authority());
        self.hosts.iter().filter(|own| own.host.matches(host)).try_for_each(|own| own.examined.check(request))
    }

    /// The index of the route that matches the request. None if no route does.
    pub fn find(&self, request: &Request) -> Option<usize> {
        let host = without_port(request.authority());
        let preflight = preflight_method(&request.method, &request.headers);
        let hosts = self.hosts.iter().filter(|own| own.host.matches(host));
        hosts.flat_map(|own| &own.entries).find(|entry| entry.matches(request, preflight)).map(|entry| entry.index)
    }

    /// The methods of the routes that match the request except for its method, sorted. Empty if
    /// there are no such routes, or for a CORS preflight, which asks for another request's method.
    pub fn allowed_methods(&self, request: &Request) -> Vec<&str> {
        if preflight_method(&request.method, &request.headers).is_some() {
            return vec![];
        }
        let host = without_port(request.authority());
        let entries = self.hosts.iter().filter(|own| own.host.matches(host)).flat_map(|own| &own.entries);
        let matching = entries.filter(|entry| matches_without_method(&entry.when, request));
        let methods: BTreeSet<&str> = matching.flat_map(|entry| &entry.when.methods).map(String::as_str).collect();
        methods.into_iter().collect()
    }
}

impl Entry {
    fn matches(&self, request: &Request, preflight: Option<&str>) -> bool {
        let Some(method) = preflight.filter(|_| self.answers_preflight) else { return matches(&self.when, request) };
        has_method(&self.when.methods, method)
            && has_target(&self.when, request)
            && self.when.headers.iter().all(|(name, value)| {
                // A preflight names the fields of the request that it asks for, without values.
                if names_field(&request.headers, name) {
                    !matches!(value, ValueMatch::Absent)
                } else {
                    has_field(&request.headers, name, value)
                }
            })
    }
}

impl HostPattern {
    fn new(host: Option<&str>) -> Self {
        match host.map(|host| (host, host.strip_prefix('*'))) {
            None => Self::Any,
            Some((_, Some(suffix))) => Self::Suffix(suffix.to_owned()),
            Some((host, None)) => Self::Exact(host.to_owned()),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Suffix(suffix) => {
                host.len() > suffix.len()
                    && host.as_bytes()[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
            }
            Self::Any => true,
        }
    }
}

/// Whether all conditions hold.
pub fn matches(when: &Match, request: &Request) -> bool {
    has_method(&when.methods, request.method.as_str()) && matches_without_method(when, request)
}

fn matches_without_method(when: &Match, request: &Request) -> bool {
    has_target(when, request) && when.headers.iter().all(|(name, value)| has_field(&request.headers, name, value))
}

/// Whether the conditions on the path and the query hold.
fn has_target(when: &Match, request: &Request) -> bool {
    when.path.as_ref().is_none_or(|path| has_path(path, request.target.path()))
        && when.query.iter().all(|(name, value)| has_parameter(request.target.query().unwrap_or(""), name, value))
}

/// The method that a preflight asks for (Fetch standard, "CORS-preflight request").
fn preflight_method<'a>(method: &Method, headers: &'a HeaderMap) -> Option<&'a str> {
    if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()
}

/// Whether a preflight asks for a request with this field.
fn names_field(headers: &HeaderMap, name: &http::HeaderName) -> bool {
    has_member(headers, header::ACCESS_CONTROL_REQUEST_HEADERS, name.as_str())
}

fn has_method(methods: &[String], method: &str) -> bool {
    methods.is_empty() || methods.iter().any(|one| one == method)
}

fn has_path(when: &PathMatch, path: &str) -> bool {
    match when {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => has_prefix(path, prefix),
        PathMatch::Regex(pattern) => pattern.0.is_match(path),
    }
}

/// `/v1` is a prefix of `/v1` and `/v1/x`, but not of `/v10`. `/v1/` is a prefix of `/v1/` and
/// `/v1/x`, but not of `/v1`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

fn has_field(headers: &HeaderMap, name: &http::HeaderName, when: &ValueMatch) -> bool {
    let any = |holds: &dyn Fn(&HeaderValue) -> bool| headers.get_all(name).iter().any(holds);
    match when {
        ValueMatch::Present => headers.contains_key(name),
        ValueMatch::Absent => !headers.contains_key(name),
        ValueMatch::Exact(exact) => any(&|value| value.as_bytes() == exact.as_bytes()),
        ValueMatch::Regex(pattern) => any(&|value| value.to_str().is_ok_and(|text| pattern.0.is_match(text))),
    }
}

fn has_parameter(query: &str, name: &str, when: &ValueMatch) -> bool {
    let any = |holds: &dyn Fn(&str) -> bool| {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(|(key, _)| decoded(key) == name).any(|(_, value)| holds(&decoded(value)))
    };
    match when {
        ValueMatch::Present => any(&|_| true),
        ValueMatch::Absent => !any(&|_| true),
        ValueMatch::Exact(exact) => any(&|value| value == exact),
        ValueMatch::Regex(pattern) => any(&|value| pattern.0.is_match(value)),
    }
}

/// A name or value of a query with `%41` and `+` decoded. Invalid escapes stay as they are.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (byte, length) = match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => (u8::try_from(high << 4 | low).unwrap_or(b'%'), 3),
            (b'+', ..) => (b' ', 1),
            (byte, ..) => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// The host of an authority, without the port and without a final dot.
fn without_port(authority: &str) -> &str {
    let host = match authority.rfind(':') {
        // The colons of an IPv6 address are inside brackets.
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_config::Config;

    /// A router for routes that are written as in gateway.yaml.
    fn router(matches: &[&str]) -> Result<Router, String> {
        let routes: String = matches.iter().map(|own| format!("  - {{upstream: u, {own}}}\n")).collect();
        let text = format!("upstreams: {{u: {{builtin: echo}}}}\nroutes:\n{routes}");
        let config =
            Config::parse(&text, "gateway.yaml", std::path::Path::new("/")).map_err(|error| error.to_string())?;
        Ok(Router::new(&config.routes))
    }

    fn request(method: &str, host: &str, target: &str, fields: &[(&'static str, &'static str)]) -> Request {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static("")));
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Request {
            method: method.parse().unwrap_or_default(),
            tls: false,
            target: target.parse().unwrap_or_else(|_| http::uri::PathAndQuery::from_static("/")),
            headers,
            body: None,
            upgrade: None,
        }
    }

    #[test]
    fn the_most_specific_route_wins() -> Result<(), String> {
        let router = router(&[
            "match: {}",
            "match: {path: {regex: \"^/v[0-9]+/x$\"}}",
            "match: {path: /v1}",
            "match: {path: /v1, methods: [POST]}",
            "match: {path: /v1, methods: [POST], headers: {x-a: b}}",
            "match: {path: {exact: /v1}}",
            "match: {host: \"*.example.com\"}",
            "match: {host: \"*.b.example.com\"}",
            "match: {host: api.example.com, path: /v1}",
        ])?;
        let find = |method, host, target| router.find(&request(method, host, target, &[]));
        assert_eq!(find("GET", "x", "/"), Some(0));
        assert_eq!(find("GET", "x", "/v10"), Some(0));
        assert_eq!(find("GET", "x", "/v2/x"), Some(1));
        assert_eq!(find("GET", "x", "/v1/x"), Some(2), "a prefix comes before an expression");
        assert_eq!(find("GET", "x", "/v1/a?b"), Some(2));
        assert_eq!(find("POST", "x", "/v1/a"), Some(3));
        assert_eq!(find("POST", "x", "/v1"), Some(5));
        assert_eq!(router.find(&request("POST", "x", "/v1/a", &[("x-a", "b")])), Some(4));
        assert_eq!(find("POST", "a.EXAMPLE.com:80", "/v1"), Some(6));
        assert_eq!(find("GET", "a.b.example.com", "/"), Some(7));
        assert_eq!(find("GET", "example.com", "/"), Some(0));
        assert_eq!(find("GET", "API.example.com.:8080", "/v1"), Some(8));
        assert_eq!(find("GET", "api.example.com", "/"), Some(6));
        assert_eq!(find("GET", "[::1]:80", "/"), Some(0));
        Ok(())
    }

    #[test]
    fn fields_and_parameters_are_conditions() -> Result<(), String> {
        let router = router(&[
            "match: {headers: {x-a: \"1\", x-b: {present: true}, x-c: {present: false}, x-d: {regex: \"^d+$\"}}}",
            "match: {query: {k: \"a b\", l: {regex: \"^[0-9]+$\"}, m: {present: true}}}",
        ])?;
        let fields = [("x-a", "0"), ("x-a", "1"), ("x-b", ""), ("x-d", "dd")];
        assert_eq!(router.find(&request("GET", "x", "/", &fields)), Some(0));
        assert_eq!(router.find(&request("GET", "x", "/", &fields[..3])), None);
        assert_eq!(router.find(&request("GET", "x", "/", &[&fields[..], &[("x-c", "")]].concat())), None);
        for (query, found) in [
            ("k=a+b&l=12&m", Some(1)),
            ("m=&%6C=%31&k=x&k=a%20b", Some(1)),
            ("k=a+b&l=12", None),
            ("k=a+b&l=1x&m", None),
            ("k=a&l=1&m", None),
            ("", None),
        ] {
            assert_eq!(router.find(&request("GET", "x", &format!("/?{query}"), &[])), found, "{query}");
        }
        assert_eq!(decoded("%zz%4"), "%zz%4");
        Ok(())
    }

    #[test]
    fn a_preflight_finds_the_route_of_the_request_that_it_asks_for() -> Result<(), String> {
        let cors = "cors: {origins: [\"https://a.example\"]}";
        let router = router(&[&format!("match: {{methods: [PUT]}}, {cors}"), "match: {methods: [DELETE]}"])?;
        let ask = |method| {
            let fields = [("origin", "https://a.example"), ("access-control-request-method", method)];
            router.find(&request("OPTIONS", "x", "/", &fields))
        };
        assert_eq!((ask("PUT"), ask("DELETE"), ask("GET")), (Some(0), None, None));
        assert_eq!(router.find(&request("OPTIONS", "x", "/", &[])), None);
        Ok(())
    }

    #[test]
    fn a_preflight_that_names_a_field_finds_the_route_with_that_condition() -> Result<(), String> {
        let cors = "cors: {origins: [\"https://a.example\"]}";
        let router = router(&[
            &format!("match: {{headers: {{x-api: {{regex: \"^v2$\"}}}}}}, {cors}"),
            &format!("match: {{headers: {{x-new: {{present: false}}}}}}, {cors}"),
            &format!("match: {{}}, {cors}"),
        ])?;
        let ask = |names| {
            let method = ("access-control-request-method", "GET");
            let fields = [("origin", "https://a.example"), method, ("access-control-request-headers", names)];
            router.find(&request("OPTIONS", "x", "/", &fields))
        };
        assert_eq!(ask("content-type, X-Api"), Some(0));
        assert_eq!(ask("content-type"), Some(1));
        assert_eq!(ask("x-new"), Some(2));
        Ok(())
    }

    #[test]
    fn the_methods_of_matching_routes_are_allowed() -> Result<(), String> {
        let router = router(&[
            "match: {path: /a, methods: [PUT, GET]}",
            "match: {path: /a/b, methods: [POST, GET]}",
            "match: {host: h, path: /a, methods: [DELETE]}",
        ])?;
        let allowed = |host, target| router.allowed_methods(&request("PATCH", host, target, &[])).join(", ");
        assert_eq!(allowed("x", "/a"), "GET, PUT");
        assert_eq!(allowed("h", "/a/b"), "DELETE, GET, POST, PUT");
        assert_eq!(allowed("x", "/"), "");
        Ok(())
    }

    #[test]
    fn long_text_is_refused_where_an_expression_would_examine_it() -> Result<(), String> {
        let router = router(&[
            "match: {host: a, path: {regex: \"^/x\"}}",
            "match: {host: b, query: {k: {regex: \"^x\"}}}",
            "match: {host: c, path: /, headers: {x-a: {regex: \"^x\"}}}",
            "match: {path: /}",
        ])?;
        let long = "x".repeat(8 << 10);
        let status = |host, target: &str, fields: &[_]| {
            router.check(&request("GET", host, target, fields)).err().map(|error| error.kind.status().as_u16())
        };
        let (path, query) = (format!("/{long}"), format!("/?{long}x"));
        assert_eq!(status("a", &path[1..], &[]), None);
        assert_eq!(status("a", &path, &[]), Some(414));
        assert_eq!(status("b", &path, &[]), None, "no expression examines this path");
        assert_eq!(status("b", &query, &[]), Some(414));
        assert_eq!(status("a", &query, &[]), None);
        let value: &'static str = path.clone().leak();
        assert_eq!(status("c", "/", &[("x-a", "x"), ("x-a", value)]), Some(431));
        assert_eq!(status("c", "/", &[("x-b", value)]), None);
        assert_eq!(status("d", &path, &[]), None);
        Ok(())
    }

    #[test]
    fn ports_are_not_part_of_the_host() {
        assert_eq!(without_port("a:80"), "a");
        assert_eq!(without_port("a."), "a");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
