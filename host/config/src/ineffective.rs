//! Finds settings that never have the effect that their author expects, although each is valid:
//! conditions that no request meets, redirects to themselves, endpoints that are the gateway,
//! filters without a route.
//!
//! Each is a warning, because a file may be written for a state that does not exist yet. This
//! module does not know: requests, YAML.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;
use witgate_http::semantics::fields::{FieldNames, is_hop_by_hop};

use crate::filters::Filter;
use crate::listeners::Listener;
use crate::routes::action::RedirectPath;
use crate::routes::conditions::{PathMatch, ValueMatch};
use crate::routes::rate_limit::RateKey;
use crate::routes::{Action, Route};
use crate::upstreams::Upstream;
use crate::upstreams::endpoints::{AddressKind, EndpointAddress, UpstreamTarget};
use crate::yaml::Section;

/// Warns of each such setting. `trust` is `trusted_proxies` and `untrusted_fields`.
pub(crate) fn check(
    top: &Section,
    listeners: &[Listener],
    upstreams: &BTreeMap<String, Upstream>,
    routes: &[Route],
    trust: (&[IpNet], &FieldNames),
) {
    for (index, route) in routes.iter().enumerate() {
        let path = format!("routes[{index}]");
        for (name, condition) in &route.matches.headers {
            if let ValueMatch::Exact(cookie) = condition
                && name == http::header::COOKIE
                && !cookie.contains(';')
                && let Some((cookie, value)) = cookie.split_once('=')
            {
                let message = format!(
                    "holds only for requests without other cookies, because the whole field is compared: \
                     write {{regex: \"(^|; ){cookie}={value}(;|$)\"}}"
                );
                top.warn_at(&[&path, "match", "headers", "cookie"], message);
            }
            if let Some(why) = never_holds(name, condition, trust) {
                top.warn_at(&[&path, "match", "headers", name.as_str()], format!("no request matches: {why}"));
            }
        }
        for (name, _) in route.matches.query.iter().filter(|(name, _)| name.contains(['?', '&', '='])) {
            let message = "no request matches: the name of a parameter has no ?, & and =; \
                           write the name as the key, and the value beside it";
            top.warn_at(&[&path, "match", "query", name], message);
        }
        if let Some(message) = keeps_url(route, listeners) {
            top.warn_at(&[&path, "redirect"], message);
        }
        if leads_to_itself(route, routes) {
            let message = "the redirect leads to a path that this route redirects again: write another path, \
                           or {exact: …} in match.path";
            top.warn_at(&[&path, "redirect"], message);
        }
        if denies_all(&route.clients.allow, &route.clients.deny) {
            let message = "no client may use the route: deny takes precedence, and it contains all of allow";
            top.warn_at(&[&path, "clients", "deny"], message);
        }
        if let Some(RateKey::Note(name)) = route.rate_limit.as_ref().map(|limit| &limit.key)
            && !sets_note(route, name)
        {
            let message = format!(
                "no policy of this route sets the note {name}, so that requests are counted by address: add the claim \
                 to jwt.notes of this route"
            );
            top.warn_at(&[&path, "rate_limit", "key"], message);
        }
        if let Action::Respond(respond) = &route.action
            && matches!(respond.status.as_u16(), 204 | 205 | 304)
            && !respond.body.is_empty()
        {
            let message = format!("a response with status {} has no body: remove it", respond.status.as_u16());
            top.warn_at(&[&path, "respond", "body"], message);
        }
    }
    check_endpoints(top, upstreams, listeners);
    check_proxies(top, listeners, trust.0);
}

/// Warns of filters that see no request.
pub(crate) fn check_filters(top: &Section, filters: &BTreeMap<String, Filter>, routes: &[Route]) {
    let is_used = |name: &String| routes.iter().flat_map(|route| &route.filters).any(|used| used.filter == *name);
    for name in filters.keys().filter(|name| !is_used(name)) {
        let message = format!("no route uses this filter, so it sees no request: write filters: [{name}] in a route");
        top.warn_at(&["filters", name], message);
    }
}

/// Why no request has such a field when routes are compared.
fn never_holds(
    name: &HeaderName,
    condition: &ValueMatch,
    (trusted, untrusted_fields): (&[IpNet], &FieldNames),
) -> Option<String> {
    if *condition == ValueMatch::Absent {
        return None;
    }
    if is_hop_by_hop(name) {
        return Some(format!("{name} concerns one connection only and is removed before (RFC 9110, section 7.6.1)"));
    }
    if name == "x-forwarded-proto" {
        let ValueMatch::Exact(scheme) = condition else { return None };
        let is_scheme = matches!(scheme.as_str(), "http" | "https");
        return (!is_scheme).then(|| "x-forwarded-proto is http or https, also for ws and wss".to_owned());
    }
    let is_written = matches!(name.as_str(), "x-forwarded-for" | "x-forwarded-host");
    (trusted.is_empty() && !is_written && (name == "forwarded" || untrusted_fields.contains(name)))
        .then(|| format!("{name} is believed only from trusted_proxies, which is empty, and removed from others"))
}

/// Whether a policy sets a note before requests are counted.
fn sets_note(route: &Route, name: &str) -> bool {
    let claim = name.strip_prefix("jwt.");
    route.jwt.as_ref().zip(claim).is_some_and(|(jwt, claim)| jwt.notes.iter().any(|own| own == claim))
}

/// Whether a redirect that changes only the path leads to the same route again.
fn leads_to_itself(route: &Route, all: &[Route]) -> bool {
    let Action::Redirect(to) = &route.action else { return false };
    let (None, None, Some(RedirectPath::Whole(target) | RedirectPath::Prefix(target))) =
        (to.scheme, &to.host, &to.path)
    else {
        return false;
    };
    let is_taken_by = |other: &Route| other.host.is_none() || other.host == route.host;
    match &route.matches.path {
        Some(PathMatch::Exact(path)) => path == target,
        Some(PathMatch::Prefix(prefix)) if is_below(target, prefix) => {
            let is_closer = |other: &Route| match &other.matches.path {
                Some(PathMatch::Exact(path)) => path == target,
                Some(PathMatch::Prefix(path)) => path.len() > prefix.len() && is_below(target, path),
                Some(PathMatch::Regex(_)) | None => false,
            };
            !all.iter().any(|other| other.name != route.name && is_taken_by(other) && is_closer(other))
        }
        _ => false,
    }
}

/// Why a redirect can leave the URL as it is, so that browsers follow it until they give up.
fn keeps_url(route: &Route, listeners: &[Listener]) -> Option<&'static str> {
    let Action::Redirect(to) = &route.action else { return None };
    if to.path.is_some() {
        return None;
    }
    let keeps_host = to.host.is_none() || to.host == route.host;
    match to.scheme {
        None if keeps_host => {
            Some("the redirect leads to the host of this route, which redirects again: write another host")
        }
        Some("https") if keeps_host && listeners.iter().any(|listener| listener.tls.is_some()) => {
            let asks_scheme = route.matches.headers.iter().any(|(name, _)| name == "x-forwarded-proto");
            (!asks_scheme).then_some(
                "requests that came by https are redirected to themselves: remove the route, and write \
                 redirect_to_https: true at the listener without tls",
            )
        }
        _ => None,
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

fn denies_all(allow: &[IpNet], deny: &[IpNet]) -> bool {
    let is_denied = |network: &IpNet| deny.iter().any(|denied| denied.contains(network));
    let all = [IpNet::from(IpAddr::from([0; 4])), IpNet::from(IpAddr::from([0; 16]))];
    let all = all.map(|network| IpNet::new(network.addr(), 0).unwrap_or(network));
    !deny.is_empty() && if allow.is_empty() { all.iter().all(is_denied) } else { allow.iter().all(is_denied) }
}

/// Endpoints that are listeners of the same file, and ports of the other scheme.
fn check_endpoints(top: &Section, upstreams: &BTreeMap<String, Upstream>, listeners: &[Listener]) {
    for (name, upstream) in upstreams {
        let UpstreamTarget::Endpoints(endpoints) = &upstream.target else { continue };
        for (index, endpoint) in endpoints.iter().enumerate() {
            let address = &endpoint.address;
            let path = ["upstreams", name, &format!("endpoints[{index}]")];
            if let Some(listener) = listeners.iter().find(|listener| is_at(address, listener)) {
                let message = format!(
                    "{address} is listener {} of this gateway: requests come back until they fail with 508, \
                     unless another route takes them",
                    listener.name
                );
                top.warn_at(&path, message);
            }
            match (address.kind, address.port, address.tls) {
                (AddressKind::Host, 443, false) => {
                    top.warn_at(&path, format!("{address} gets plain http at the port of https: write https://"));
                }
                (AddressKind::Host, 80, true) => {
                    top.warn_at(&path, format!("{address} gets TLS at the port of http: write http://"));
                }
                _ => {}
            }
        }
    }
}

/// Whether a connection to the endpoint reaches the listener.
fn is_at(endpoint: &EndpointAddress, listener: &Listener) -> bool {
    if endpoint.kind == AddressKind::Unix {
        return listener.address.unix().is_some_and(|path| path.as_os_str() == endpoint.host.as_str());
    }
    let Some(address) = listener.address.tcp() else { return false };
    let host = endpoint.host.parse::<IpAddr>().ok();
    let is_loopback = endpoint.host == "localhost" || host.is_some_and(|ip| ip.is_loopback());
    let is_this_host = host == Some(address.ip())
        || (is_loopback && (address.ip().is_unspecified() || (host.is_none() && address.ip().is_loopback())));
    endpoint.kind == AddressKind::Host && address.port() != 0 && endpoint.port == address.port() && is_this_host
}

fn check_proxies(top: &Section, listeners: &[Listener], trusted: &[IpNet]) {
    if trusted.iter().any(|network| network.prefix_len() == 0) {
        let message = "all peers are trusted: each client can choose the address, scheme and identity that upstreams, \
                       limits and logs see; list only the proxies in front of the gateway";
        top.warn_at(&["trusted_proxies"], message);
    }
    let has_tls = listeners.iter().any(|listener| listener.tls.is_some());
    if has_tls || !trusted.is_empty() {
        return;
    }
    for (index, _) in listeners.iter().enumerate().filter(|(_, listener)| listener.redirect_to_https.is_some()) {
        let message = "no listener has tls, and trusted_proxies is empty: if a load balancer in front ends TLS, its \
                       requests are redirected again and again; list it in trusted_proxies";
        top.warn_at(&[&format!("listeners[{index}]"), "redirect_to_https"], message);
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use std::path::Path;

    /// The warnings about a file with these top-level keys, and this route beside an upstream.
    fn warnings(top: &str, endpoint: &str, routes: &str) -> String {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:8080\"{top}\nupstreams: {{u: {{endpoints: [\"{endpoint}\"]}}}}\nroutes: [{routes}]"
        );
        match Config::parse(&text, "f", Path::new("/")) {
            Ok(config) => config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(errors) => errors.to_string(),
        }
    }

    #[test]
    fn settings_without_effect_are_named() {
        let (plain, good) = ("}]", "http://127.0.0.1:9000");
        let proxies = "}]\ntrusted_proxies: [10.0.0.0/8]";
        let secure = ", tls: {certificates: [{certificate: a, key: b}]}}]";
        let grpc_at_http = "}]\ntelemetry: {otlp: {endpoint: \"http://127.0.0.1:4318\", protocol: grpc}}";
        let with = |condition: &str| format!("{{match: {{headers: {{{condition}}}}}, upstream: u}}");
        for (top, endpoint, route, expected) in [
            (plain, good, with("connection: upgrade"), "removed before"),
            (plain, good, with("te: {present: true}"), "removed before"),
            (plain, good, with("x-forwarded-proto: wss"), "http or https"),
            (plain, good, with("x-real-ip: 192.0.2.1"), "trusted_proxies, which is empty"),
            (plain, good, with("forwarded: {present: true}"), "trusted_proxies, which is empty"),
            (plain, good, "{match: {path: /a}, redirect: {path: /a/b}}".into(), "redirects again"),
            (plain, good, "{match: {path: {exact: /a}}, redirect: {path: /a}}".into(), "redirects again"),
            (plain, good, "{match: {path: /a}, redirect: {prefix: /a/v2}}".into(), "redirects again"),
            (plain, good, "{upstream: u, clients: {allow: [10.1.0.0/16], deny: [10.0.0.0/8]}}".into(), "no client"),
            (plain, good, "{upstream: u, clients: {deny: [0.0.0.0/0, \"::/0\"]}}".into(), "no client"),
            (plain, good, "{respond: {status: 204, body: hi}}".into(), "has no body"),
            (plain, good, with("cookie: a=1"), "(^|; )a=1(;|$)"),
            (plain, good, "{match: {query: {\"?a\": \"1\"}}, upstream: u}".into(), "the name of a parameter"),
            (plain, good, "{match: {host: a.test}, redirect: {host: a.test}}".into(), "redirects again"),
            (secure, good, "{redirect: {scheme: https}}".into(), "redirected to themselves"),
            (plain, good, "{upstream: u, headers: {request: {set: {x-a: $remote_addr}}}}".into(), "sent as it is"),
            (plain, good, "{upstream: u, headers: {request: {set: {x-a: \"{{ .IP }}\"}}}}".into(), "sent as it is"),
            (plain, good, "{upstream: u, headers: {request: {set: {x-a: \"%REQ(x-b)%\"}}}}".into(), "sent as it is"),
            (plain, good, "{upstream: u, rate_limit: {limit: 1, key: {header: x-forwarded-for}}}".into(), "client_ip"),
            (plain, good, "{match: {path: {regex: \"^/api/*\"}}, upstream: u}".into(), "repeats the slash"),
            ("}]\ntelemetry: {traces: {sample: 1}}", good, "{upstream: u}".into(), "nothing is traced"),
            (grpc_at_http, good, "{upstream: u}".into(), "write protocol: http"),
            (plain, "http://localhost:8080", "{upstream: u}".into(), "listener main of this gateway"),
            (plain, "http://127.0.0.1:8080", "{upstream: u}".into(), "listener main of this gateway"),
            (plain, "http://api.test:443", "{upstream: u}".into(), "write https://"),
            (plain, "https://api.test:80", "{upstream: u}".into(), "write http://"),
            ("}]\ntrusted_proxies: [0.0.0.0/0]", good, "{upstream: u}".into(), "all peers are trusted"),
            (", redirect_to_https: true}]", good, "{upstream: u}".into(), "again and again"),
            ("}]\nfilters: {f: {source: f.wasm}}", good, "{upstream: u}".into(), "no route uses this filter"),
        ] {
            let found = warnings(top, endpoint, &route);
            assert!(found.contains(expected), "{top} {endpoint} {route}: {found}");
        }
        for (top, endpoint, route) in [
            ("}]\nfilters: {f: {source: f.wasm}}", good, "{upstream: u, filters: [f]}".into()),
            (plain, good, with("connection: {present: false}")),
            (plain, good, with("x-forwarded-proto: https")),
            (plain, good, with("cookie: {regex: \"a=1\"}")),
            (plain, good, "{match: {host: a.test}, redirect: {host: www.a.test}}, {upstream: u}".into()),
            (plain, good, "{redirect: {scheme: https}}".into()),
            (secure, good, "{redirect: {scheme: https, path: /a}}".into()),
            (plain, good, "{upstream: u, headers: {request: {set: {x-a: \"$5, 10%, {a}, %20 OK%20\"}}}}".into()),
            (plain, good, "{match: {path: {regex: \"^/(api|v1)(/.*)?$\"}}, upstream: u}".into()),
            (plain, good, with("x-forwarded-host: h.test")),
            (proxies, good, with("x-real-ip: 192.0.2.1")),
            (proxies, good, with("x-real-ip: {present: false}")),
            (plain, good, "{match: {path: /a}, redirect: {path: /b}}".into()),
            (plain, good, "{match: {path: /a}, redirect: {scheme: https, path: /a}}".into()),
            (plain, good, "{match: {path: {exact: /a}}, redirect: {path: /a/b}}".into()),
            (plain, good, "{match: {path: /a}, redirect: {path: /a/b}}, {match: {path: /a/b}, upstream: u}".into()),
            (plain, good, "{redirect: {path: /login}}, {match: {path: /login}, upstream: u}".into()),
            (plain, good, "{upstream: u, clients: {allow: [10.0.0.0/8], deny: [10.1.0.0/16]}}".into()),
            (plain, "http://127.0.0.2:8080", "{upstream: u}".into()),
            (plain, "https://api.test", "{upstream: u}".into()),
            ("}]\ntrusted_proxies: [10.0.0.0/8]", good, "{upstream: u}".into()),
        ] {
            assert_eq!(warnings(top, endpoint, &route), "", "{top} {endpoint} {route}");
        }
    }
}
