//! Removes trailers that name a field which the sender of the message must not set.
//!
//! Some servers join trailers with the fields of the head. So every rule that removes or replaces a
//! field of the head holds for a trailer of the same name: fields that name the client, fields that
//! an authentication step writes, and what the operator and filters edit. A bounded list of names
//! per route decides. A body whose framing excludes trailers costs nothing but the list's pointer.
//! This module does not know: how trailers arrive.

use std::sync::Arc;

use http::HeaderName;

use witgate_config::{Config, HeaderEdits, Route, TokenPlace};
use witgate_http::body::Body;
use witgate_http::semantics::fields::{FieldNames, drop_underscore_lookalikes};

/// Fields of a request that the gateway itself writes.
const OF_REQUESTS: [&str; 7] =
    ["x-forwarded-*", "forwarded", "x-request-id", "via", "traceparent", "tracestate", "x-witgate-*"];
/// Fields of a response that the gateway itself writes.
const OF_RESPONSES: [&str; 5] =
    ["x-request-id", "x-witgate-*", "strict-transport-security", "access-control-*", "ratelimit*"];

/// The trailers that one route removes.
pub struct TrailerRules {
    request: Arc<FieldNames>,
    response: Arc<FieldNames>,
}

impl TrailerRules {
    /// The rules that follow from the rules about header fields.
    pub fn new(config: &Config, route: &Route) -> Self {
        let mut request = FieldNames::default();
        OF_REQUESTS.iter().for_each(|name| request.add(name));
        request.add_all(&config.untrusted_fields);
        let mut add = |name: &HeaderName| request.add(&name.as_str().replace('_', "-"));
        route.basic_auth.iter().filter_map(|auth| auth.user_header.as_ref()).for_each(&mut add);
        route.forward_auth.iter().flat_map(|auth| &auth.copy).for_each(&mut add);
        if let Some(jwt) = &route.jwt {
            jwt.headers.iter().for_each(|(name, _)| add(name));
            if let TokenPlace::Header(name) = &jwt.token {
                add(name);
            }
        }
        edited(&route.headers.request).for_each(&mut add);
        let mut response = FieldNames::default();
        OF_RESPONSES.iter().for_each(|name| response.add(name));
        edited(&route.headers.response).for_each(|name| response.add(&name.as_str().replace('_', "-")));
        Self { request: Arc::new(request), response: Arc::new(response) }
    }

    /// The body of a request. `edited` are fields that filters removed or set, or that the client
    /// wants to be removed.
    pub fn guard_request(&self, body: Body, edited: Vec<HeaderName>) -> Body {
        let names = self.request.clone();
        body.without_trailers(edited).map_trailers(move |trailers| {
            names.remove_from(trailers);
            drop_underscore_lookalikes(trailers);
        })
    }

    /// The body of a response.
    pub fn guard_response(&self, body: Body) -> Body {
        let names = self.response.clone();
        body.map_trailers(move |trailers| names.remove_from(trailers))
    }
}

/// The fields whose values a sender cannot choose.
fn edited(edits: &HeaderEdits) -> impl Iterator<Item = &HeaderName> {
    edits.remove.iter().chain(edits.set.iter().map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use std::path::Path;

    #[test]
    fn each_rule_about_header_fields_holds_for_trailers() -> Result<(), String> {
        let yaml = "upstreams: {u: {builtin: echo}}\nroutes:\n  - upstream: u\n    \
                    jwt: {issuer: \"https://id.test\", jwks: {upstream: u}, headers: {x-sub: sub}}\n    \
                    forward_auth: {upstream: u, copy: [x-user_id]}\n    \
                    headers: {request: {remove: [x-internal], set: {x-tenant: a}}, response: {remove: [server]}}";
        let config = Config::parse(yaml, "f", Path::new("/")).map_err(|errors| errors.to_string())?;
        let rules = TrailerRules::new(&config, &config.routes[0]);
        let is_kept = |names: &FieldNames, name: &str| {
            let mut trailers = HeaderMap::new();
            trailers.insert(
                HeaderName::try_from(name).map_err(|error| error.to_string())?,
                http::HeaderValue::from_static("1"),
            );
            names.remove_from(&mut trailers);
            Ok::<_, String>(!trailers.is_empty())
        };
        for name in ["x-sub", "x_sub", "x-user-id", "x-internal", "x-tenant", "x-real-ip", "x-forwarded-port", "via"] {
            assert!(!is_kept(&rules.request, name)?, "{name}");
        }
        for name in ["x-checksum", "server", "grpc-status"] {
            assert!(is_kept(&rules.request, name)?, "{name}");
        }
        for (name, kept) in [("server", false), ("x-request-id", false), ("grpc-status", true), ("x-sub", true)] {
            assert_eq!(is_kept(&rules.response, name)?, kept, "{name}");
        }
        Ok(())
    }
}
