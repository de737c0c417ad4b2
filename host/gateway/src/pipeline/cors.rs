//! The CORS protocol (Fetch standard, section 3.2): tells browsers which other sites' scripts may
//! use a route.
//!
//! The gateway answers a preflight before any filter: a preflight carries no credentials by design,
//! so an authenticating filter could only refuse it. On every other response of the route, errors
//! included, the gateway's fields replace the upstream's, because two sets could contradict each
//! other. CORS protects users of browsers, not the upstream: other clients ignore it.
//! This module does not know: filters, upstreams.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use witgate_config::{Cors, Origin};
use witgate_runtime::exchange::Response;

/// A route's CORS rules, with the values of the response fields ready to send.
#[derive(Debug)]
pub struct Policy {
    origins: Vec<Origin>,
    credentials: bool,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// The value of `Access-Control-Allow-Origin` for one exchange. None if the origin is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(Option<HeaderValue>);

/// The fields that only the gateway sets.
const OWNED: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// The star does not stand for `authorization` (Fetch standard, section 4.10), but an operator who
/// writes it means any field.
fn with_authorization(names: &[String]) -> Vec<String> {
    let star = names.iter().any(|name| name == "*").then(|| "authorization".to_owned());
    names.iter().cloned().chain(star).collect()
}

impl Policy {
    /// Prepares the values of the fields.
    pub fn new(cors: &Cors) -> Self {
        let list = |values: &[String]| HeaderValue::try_from(values.join(", ")).ok().filter(|value| !value.is_empty());
        Self {
            origins: cors.origins.clone(),
            credentials: cors.credentials,
            methods: list(&cors.methods),
            headers: list(&with_authorization(&cors.headers)),
            expose: list(&cors.expose),
            max_age: HeaderValue::from(cors.max_age.as_secs()),
        }
    }

    /// Checks a request's origin. The result is for [`Self::apply`].
    pub fn origin(&self, request: &HeaderMap) -> AllowedOrigin {
        let allowed = |value: &&HeaderValue| value.to_str().is_ok_and(|origin| self.allows(origin));
        if self.is_public() {
            return AllowedOrigin(Some(HeaderValue::from_static("*")));
        }
        AllowedOrigin(request.get(header::ORIGIN).filter(allowed).cloned())
    }

    /// The response to a preflight, or None for any other request. An origin that is not allowed
    /// gets 403 without CORS fields.
    pub fn preflight(&self, method: &Method, request: &HeaderMap) -> Option<Response> {
        if method != Method::OPTIONS
            || !request.contains_key(header::ORIGIN)
            || !request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(8);
        let origin = self.origin(request);
        let status = if origin.0.is_some() { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN };
        if origin.0.is_some() {
            let fields = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone()),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone()),
                (header::ACCESS_CONTROL_MAX_AGE, Some(self.max_age.clone())),
            ];
            headers.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        self.set_origin(&origin, &mut headers);
        Some(Response { status, headers, local: true, body: Some(Bytes::new()) })
    }

    /// Sets the fields of a response.
    pub fn apply(&self, origin: &AllowedOrigin, response: &mut HeaderMap) {
        for name in &OWNED {
            response.remove(name);
        }
        self.set_origin(origin, response);
        if let (Some(expose), Some(_)) = (&self.expose, &origin.0) {
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn set_origin(&self, origin: &AllowedOrigin, response: &mut HeaderMap) {
        // Without `Vary` a cache would give one site's response to another site.
        if !self.is_public() {
            response.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = &origin.0 {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.credentials {
                response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
    }

    fn is_public(&self) -> bool {
        self.origins.contains(&Origin::Any)
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|one| match one {
            Origin::Any => true,
            Origin::Exact(exact) => origin == exact,
            // The star stands for one or more labels and nothing else.
            Origin::Wildcard(before, after) => {
                origin.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str())).is_some_and(
                    |star| !star.is_empty() && star.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
                )
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn policy(origins: Vec<Origin>, credentials: bool) -> Policy {
        Policy::new(&Cors {
            origins,
            methods: vec!["GET".into(), "PUT".into()],
            headers: vec!["x-a".into()],
            expose: vec!["x-b".into()],
            credentials,
            max_age: Duration::from_secs(60),
        })
    }

    fn sent(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn some(origin: &str) -> Origin {
        match origin.split_once('*') {
            Some((before, after)) => Origin::Wildcard(before.into(), after.into()),
            None => Origin::Exact(origin.into()),
        }
    }

    #[test]
    fn a_preflight_gets_the_methods_and_fields_that_are_allowed() {
        let policy = policy(vec![some("https://a.example")], true);
        let ask = |origin| sent(&[(header::ORIGIN, origin), (header::ACCESS_CONTROL_REQUEST_METHOD, "PUT")]);
        let answer = policy.preflight(&Method::OPTIONS, &ask("https://a.example"));
        let fields = answer.map(|answer| (answer.status, answer.headers));
        let expected = sent(&[
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, PUT"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "x-a"),
            (header::ACCESS_CONTROL_MAX_AGE, "60"),
            (header::VARY, "Origin"),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "https://a.example"),
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        ]);
        assert_eq!(fields, Some((StatusCode::NO_CONTENT, expected)));
        let refused = policy.preflight(&Method::OPTIONS, &ask("https://b.example"));
        let fields = refused.map(|answer| (answer.status, answer.headers));
        assert_eq!(fields, Some((StatusCode::FORBIDDEN, sent(&[(header::VARY, "Origin")]))));
        assert!(policy.preflight(&Method::GET, &ask("https://a.example")).is_none());
        assert!(policy.preflight(&Method::OPTIONS, &sent(&[(header::ORIGIN, "https://a.example")])).is_none());
    }

    #[test]
    fn a_star_for_fields_stands_for_authorization_too() {
        assert_eq!(with_authorization(&["*".into()]), ["*", "authorization"]);
        assert_eq!(with_authorization(&["x-a".into()]), ["x-a"]);
    }

    #[test]
    fn the_gateway_s_fields_replace_the_upstream_s() {
        let policy = policy(vec![some("https://a.example")], false);
        let mut response = sent(&[(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::VARY, "Accept")]);
        policy.apply(&policy.origin(&sent(&[(header::ORIGIN, "https://a.example")])), &mut response);
        assert_eq!(
            response.get(header::ACCESS_CONTROL_ALLOW_ORIGIN),
            Some(&HeaderValue::from_static("https://a.example"))
        );
        assert_eq!(response.get(header::ACCESS_CONTROL_EXPOSE_HEADERS), Some(&HeaderValue::from_static("x-b")));
        assert_eq!(response.get_all(header::VARY).iter().count(), 2);
        policy.apply(&policy.origin(&HeaderMap::new()), &mut response);
        assert!(!response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        let policy = policy(vec![some("https://a.example"), some("https://*.b.example:8443")], false);
        for (origin, allowed) in [
            ("https://a.example", true),
            ("https://x.b.example:8443", true),
            ("https://x.y.b.example:8443", true),
            ("http://a.example", false),
            ("https://a.example.evil", false),
            ("https://evila.example", false),
            ("https://b.example:8443", false),
            ("https://.b.example:8443", false),
            ("https://evil/.b.example:8443", false),
            ("https://x.b.example", false),
            ("null", false),
        ] {
            assert_eq!(policy.allows(origin), allowed, "{origin}");
        }
        assert_eq!(
            super::tests::policy(vec![Origin::Any], false).origin(&HeaderMap::new()).0,
            Some(HeaderValue::from_static("*"))
        );
    }
}
