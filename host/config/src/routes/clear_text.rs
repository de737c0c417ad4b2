//! Finds routes that answer http although the file redirects http to https by a route.
//!
//! A route with `match: {headers: {x-forwarded-proto: http}}` and a redirect to https is less
//! specific than any route with a path or a host, so those keep answering in clear text. The key
//! `listeners[].redirect_to_https` has no such gap. This module does not know: requests.

use super::conditions::{PathMatch, ValueMatch};
use super::unreachable::covers;
use super::{Action, Route};
use crate::listeners::Listener;
use crate::yaml::Section;

/// Warns of the first route that such a redirect does not precede.
pub(crate) fn check(top: &Section, listeners: &[Listener], routes: &[Route]) {
    let is_open = |listener: &Listener| listener.tls.is_none() && listener.redirect_to_https.is_none();
    if !listeners.iter().any(is_open) || listeners.iter().all(|listener| listener.tls.is_none()) {
        return;
    }
    let redirects: Vec<(usize, Route)> =
        routes.iter().enumerate().filter_map(|(at, route)| Some((at, without_scheme(route)?))).collect();
    let Some((_, first)) = redirects.first() else { return };
    let leaks = |(at, route): &(usize, &Route)| {
        let is_redirected = |(own_at, own): &(usize, Route)| {
            let rank = (routes[*own_at].matches.specificity(), *own_at);
            covers(own, route) && rank < (route.matches.specificity(), *at)
        };
        !is_exempt(route) && !redirects.iter().any(is_redirected)
    };
    let mut leaking = routes.iter().enumerate().filter(leaks);
    let Some((at, route)) = leaking.next() else { return };
    let more = match leaking.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let message = format!(
        "{}{more} still answers http in clear text: it is more specific than the redirect {}; \
         write redirect_to_https: true at the listener without tls",
        route.name, first.name
    );
    top.warn_at(&[&format!("routes[{at}]"), "match"], message);
}

/// A redirect of http requests to https, without its condition on the scheme.
fn without_scheme(route: &Route) -> Option<Route> {
    let Action::Redirect(to) = &route.action else { return None };
    let is_scheme =
        |(name, value): &(http::HeaderName, ValueMatch)| is_proto(name) && *value == ValueMatch::Exact("http".into());
    if to.scheme != Some("https") || !route.matches.headers.iter().any(is_scheme) {
        return None;
    }
    let mut route = route.clone();
    route.matches.headers.retain(|condition| !is_scheme(condition));
    Some(route)
}

/// Whether a route may answer http, or decides by the scheme itself.
fn is_exempt(route: &Route) -> bool {
    let is_challenge = match &route.matches.path {
        Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) => path.starts_with("/.well-known/acme-challenge"),
        _ => false,
    };
    let redirects = matches!(&route.action, Action::Redirect(to) if to.scheme == Some("https"));
    is_challenge || redirects || route.matches.headers.iter().any(|(name, _)| is_proto(name))
}

fn is_proto(name: &http::HeaderName) -> bool {
    name == "x-forwarded-proto"
}

#[cfg(test)]
mod tests {
    use crate::Config;

    const RECIPE: &str = "{match: {headers: {x-forwarded-proto: http}}, redirect: {scheme: https}}";

    fn warnings(plain: &str, routes: &[&str]) -> String {
        let text = format!(
            "listeners:\n- {{address: \"[::1]:1\"{plain}}}\n- {{name: s, address: \"[::1]:2\", tls: {{certificates: \
             [{{certificate: a, key: b}}]}}}}\nupstreams: {{u: {{builtin: echo}}}}\nroutes: [{}]",
            routes.join(", ")
        );
        match Config::parse(&text, "f", std::path::Path::new("/")) {
            Ok(config) => config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(errors) => errors.to_string(),
        }
    }

    #[test]
    fn a_route_that_still_answers_http_is_named() {
        let api = "{name: api, match: {path: /api}, upstream: u}";
        let any = "{name: any, upstream: u}";
        let host = "{name: host, match: {host: h.test}, upstream: u}";
        assert!(warnings("", &[RECIPE, api, any]).contains("api still answers http"));
        assert!(warnings("", &[RECIPE, host, api]).contains("host (and 1 more) still answers http"));
        for (plain, routes) in [
            ("", vec![RECIPE, any]),
            ("", vec![api, any]),
            (", redirect_to_https: true", vec![RECIPE, api]),
            ("", vec![RECIPE, "{match: {path: /.well-known/acme-challenge}, upstream: u}"]),
            ("", vec![RECIPE, "{match: {path: /a, headers: {x-forwarded-proto: https}}, upstream: u}"]),
        ] {
            assert_eq!(warnings(plain, &routes), "", "{routes:?}");
        }
    }
}
