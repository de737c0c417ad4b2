//! Which route takes a request: host, path prefix and method, the most specific first.
//!
//! One sorted list, searched from the top: with the dozens of routes that a gateway has, comparing a few prefixes costs less than hashing, and the
//! order is the rule itself, readable in one place. Must not know: filters, upstreams.

use http::Method;

use crate::config::{Match, Route};

/// Finds the route of a request.
pub struct Router {
    /// Most specific first.
    entries: Vec<Entry>,
}

struct Entry {
    host: Host,
    path: String,
    methods: Vec<String>,
    index: usize,
}

enum Host {
    Exact(String),
    /// `.example.com`: any name that ends so.
    Suffix(String),
    Any,
}

impl Router {
    /// Sorts the routes: exact host before wildcard before any, longer path before shorter, methods named before any, then as written.
    pub fn new(routes: &[Route]) -> Self {
        let mut entries: Vec<Entry> = routes.iter().enumerate().map(|(index, route)| entry(index, route)).collect();
        entries.sort_by_key(|entry| {
            let host = match &entry.host {
                Host::Exact(_) => (0, 0),
                Host::Suffix(suffix) => (1, usize::MAX - suffix.len()),
                Host::Any => (2, 0),
            };
            (host, usize::MAX - entry.path.len(), entry.methods.is_empty(), entry.index)
        });
        Self { entries }
    }

    /// The index of the route that takes the request; none where no route does. `authority` may have a port.
    pub fn find(&self, authority: &str, path: &str, method: &Method) -> Option<usize> {
        let host = without_port(authority);
        let takes = |entry: &&Entry| {
            has_prefix(path, &entry.path) && has_method(&entry.methods, method) && entry.host.takes(host)
        };
        self.entries.iter().find(takes).map(|entry| entry.index)
    }
}

impl Host {
    fn takes(&self, host: &str) -> bool {
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

/// Whether a filter is to be called for this request at all.
pub fn matches(when: &Match, method: &Method, path: &str, headers: &http::HeaderMap) -> bool {
    has_method(&when.methods, method)
        && when.path.as_deref().is_none_or(|prefix| has_prefix(path, prefix))
        && when.header.as_deref().is_none_or(|name| headers.contains_key(name))
}

fn entry(index: usize, route: &Route) -> Entry {
    let host = match route.host.as_deref() {
        None => Host::Any,
        Some(host) => match host.strip_prefix('*') {
            Some(suffix) => Host::Suffix(suffix.to_owned()),
            None => Host::Exact(host.to_owned()),
        },
    };
    Entry { host, path: route.path.clone(), methods: route.methods.clone(), index }
}

fn has_method(methods: &[String], method: &Method) -> bool {
    methods.is_empty() || methods.iter().any(|one| one == method.as_str())
}

/// `/v1` is a prefix of `/v1` and `/v1/x`, not of `/v10`; `/v1/` of `/v1/` and `/v1/x`, not of `/v1`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        // The colons of a bare IPv6 address are inside its brackets.
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, path: &str, methods: &[&str]) -> Route {
        Route {
            name: String::new(),
            host: host.map(str::to_owned),
            path: path.to_owned(),
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            filters: vec![],
            upstream: String::new(),
        }
    }

    #[test]
    fn the_most_specific_route_wins() {
        let router = Router::new(&[
            route(None, "/", &[]),
            route(None, "/v1", &[]),
            route(None, "/v1", &["POST"]),
            route(Some("*.example.com"), "/", &[]),
            route(Some("api.example.com"), "/v1", &[]),
        ]);
        let find = |host, path, method: Method| router.find(host, path, &method);
        assert_eq!(find("x", "/", Method::GET), Some(0));
        assert_eq!(find("x", "/v10", Method::GET), Some(0));
        assert_eq!(find("x", "/v1/a", Method::GET), Some(1));
        assert_eq!(find("x", "/v1", Method::POST), Some(2));
        assert_eq!(find("a.EXAMPLE.com:80", "/v1", Method::POST), Some(3));
        assert_eq!(find("example.com", "/", Method::GET), Some(0));
        assert_eq!(find("API.example.com:8080", "/v1", Method::GET), Some(4));
        assert_eq!(find("api.example.com", "/", Method::GET), Some(3));
        assert_eq!(find("[::1]:80", "/", Method::GET), Some(0));
        assert_eq!(Router::new(&[route(None, "/a", &[])]).find("x", "/", &Method::GET), None);
    }

    #[test]
    fn ports_are_not_part_of_the_host() {
        assert_eq!(without_port("a:80"), "a");
        assert_eq!(without_port("a"), "a");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
