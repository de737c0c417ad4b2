//! Calls of filters to other services: what the operator grants, and who sends them.
//!
//! A request is checked here, before it leaves the runtime: its origin must be in the grant, and it
//! must be a request that the gateway could have received itself. The gateway provides the
//! [`HttpSender`]. This module does not know: WIT, connections, upstreams.

pub(crate) mod sender;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use witgate_http::semantics::origin::Origin;
use witgate_http::text::{bounded, quoted};

use crate::exchange::{Exchange, checked_name, checked_target, checked_value};
pub use sender::{HttpSender, OutboundCall, SendError, Sending};

/// The longest URL in bytes.
const URL_BYTES_MAX: usize = 8 << 10;
const FIELDS_MAX: usize = 128;
const FIELD_BYTES_MAX: usize = 64 << 10;
/// An exchange that so many calls of filters led to, one after the other, makes no further call.
/// Each of them can multiply the number of requests.
pub(crate) const CALLS_IN_SEQUENCE_MAX: u8 = 3;
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Fields of the exchange's request that a call gets, unless the filter sets them.
const INHERITED: [HeaderName; 3] =
    [HeaderName::from_static("x-request-id"), TRACEPARENT, HeaderName::from_static("tracestate")];

/// What a filter may call.
#[derive(Clone)]
pub struct HttpGrant {
    /// Where the grant is in gateway.yaml, such as `filters.NAME.http`.
    pub key: Arc<str>,
    /// The names of upstreams, by the normal form of an [`Origin`].
    pub origins: BTreeMap<String, Arc<str>>,
    /// Calls that one handler may make.
    pub calls: u32,
    /// How long one handler may wait for all its calls together.
    pub wait: Duration,
    /// The largest body of a request, in bytes.
    pub request_bytes: usize,
    /// The largest body of a response, in bytes.
    pub response_bytes: usize,
    /// Sends the requests.
    pub sender: Arc<dyn HttpSender>,
}

/// A request as a filter writes it.
pub(crate) struct RequestParts {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The caller has counted it in the budget of the exchange.
    pub(crate) body: Bytes,
}

impl HttpGrant {
    /// The upstream for an origin.
    ///
    /// # Errors
    ///
    /// The origin is not granted; the text says what to add to gateway.yaml.
    pub fn upstream(&self, origin: &Origin) -> Result<&Arc<str>, SendError> {
        let name = origin.to_string();
        self.origins.get(&name).ok_or_else(|| {
            SendError::Denied(bounded(format_args!(
                "{name} is not granted: if it should be called, add it to {}.origins in gateway.yaml",
                self.key
            )))
        })
    }

    /// Checks a request and makes the call of it.
    pub(crate) fn check(
        &self,
        exchange: &Exchange,
        parts: RequestParts,
        timeout: Duration,
    ) -> Result<OutboundCall, SendError> {
        let invalid = |text: String| SendError::Invalid(bounded(text));
        if parts.url.len() > URL_BYTES_MAX {
            return Err(invalid(format!("the URL has {} bytes; at most {URL_BYTES_MAX}", parts.url.len())));
        }
        let url: Uri = parts
            .url
            .parse()
            .map_err(|error| invalid(format!("the URL {} cannot be parsed: {error}", quoted(&parts.url))))?;
        let origin = Origin::of(&url).map_err(|why| invalid(format!("the URL {}: {why}", quoted(&parts.url))))?;
        let upstream = self.upstream(&origin)?.clone();
        let target = checked_target(url.path(), url.query()).map_err(|refusal| invalid(refusal.message()))?;
        let method = Method::from_bytes(parts.method.as_bytes())
            .ok()
            .filter(|method| *method != Method::CONNECT && *method != Method::TRACE)
            .ok_or_else(|| invalid(format!("the method {} is not allowed", quoted(&parts.method))))?;
        if parts.body.len() > self.request_bytes {
            return Err(SendError::Limit(format!(
                "the request's body has {} bytes; {}.request_bytes is {}",
                parts.body.len(),
                self.key,
                self.request_bytes
            )));
        }
        let mut headers = checked_fields(parts.headers)?;
        let host = HeaderValue::from_str(&origin.authority()).map_err(|_| invalid("the host is not valid".into()))?;
        headers.insert(header::HOST, host);
        headers.insert(header::VIA, exchange.passed.via_of_call());
        inherit(&mut headers, &exchange.request.headers);
        let mut request = http::Request::new(parts.body);
        *request.method_mut() = method;
        *request.uri_mut() = target.into();
        *request.headers_mut() = headers;
        Ok(OutboundCall {
            upstream,
            origin,
            request,
            timeout,
            response_bytes: self.response_bytes,
            client: exchange.client.address.ip(),
            budget: exchange.budget.clone(),
        })
    }
}

fn checked_fields(fields: Vec<(String, String)>) -> Result<HeaderMap, SendError> {
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    if fields.len() > FIELDS_MAX || bytes > FIELD_BYTES_MAX {
        return Err(SendError::Limit(format!(
            "a request has at most {FIELDS_MAX} header fields with {FIELD_BYTES_MAX} bytes"
        )));
    }
    let mut headers = HeaderMap::with_capacity(fields.len() + 4);
    for (name, value) in fields {
        let name = checked_name(&name).map_err(|refusal| SendError::Invalid(refusal.message()))?;
        if name == header::VIA || name == header::EXPECT {
            return Err(SendError::Invalid(format!("header {name} belongs to the gateway: leave it out")));
        }
        let value = checked_value(&name, &value).map_err(|refusal| SendError::Invalid(refusal.message()))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Copies the fields by which a call is found in logs and traces. A `tracestate` belongs to its
/// `traceparent`.
fn inherit(headers: &mut HeaderMap, from: &HeaderMap) {
    let has_own_trace = headers.contains_key(&TRACEPARENT);
    for name in INHERITED {
        let is_left_out = headers.contains_key(&name) || (has_own_trace && name != INHERITED[0]);
        if let Some(value) = from.get(&name).filter(|_| !is_left_out) {
            headers.insert(name, value.clone());
        }
    }
}

/// The fields of a request that the calls of a component inherit.
pub(crate) fn inherited(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    inherit(&mut kept, headers);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Passed;

    struct NoSender;

    impl HttpSender for NoSender {
        fn send(&self, _: OutboundCall) -> Sending {
            Box::pin(async { Err(SendError::Unavailable("no network".into())) })
        }
    }

    fn check(method: &str, url: &str, headers: &[(&str, &str)], body: usize) -> Result<OutboundCall, SendError> {
        let grant = HttpGrant {
            key: "filters.f.http".into(),
            origins: BTreeMap::from([("https://a.example".into(), "a".into()), ("http://[::1]:81".into(), "b".into())]),
            calls: 1,
            wait: Duration::from_secs(1),
            request_bytes: 10,
            response_bytes: 10,
            sender: Arc::new(NoSender),
        };
        let parts = RequestParts {
            method: method.into(),
            url: url.into(),
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: vec![0; body].into(),
        };
        let exchange = Exchange { passed: Passed::after_calls(1), ..Exchange::blank() };
        grant.check(&exchange, parts, Duration::from_secs(1))
    }

    #[test]
    fn a_granted_request_gets_its_host_and_the_mark_of_a_call() -> Result<(), SendError> {
        let call = check("POST", "https://A.example:443/x/../y?q=1#part", &[("x-a", "1")], 10)?;
        assert_eq!((&*call.upstream, call.request.uri().to_string().as_str()), ("a", "/y?q=1"));
        let headers = call.request.headers();
        assert_eq!(headers.get("host"), Some(&HeaderValue::from_static("a.example")));
        assert_eq!(Passed::of(headers).calls, 2);
        let other = check("GET", "http://[0::1]:81", &[], 0)?;
        assert_eq!(other.request.headers().get("host"), Some(&HeaderValue::from_static("[::1]:81")));
        Ok(())
    }

    #[test]
    fn only_granted_origins_are_called() {
        for url in [
            "http://a.example",
            "https://a.example:8443",
            "https://b.example",
            "https://a.example.evil.example",
            "http://127.0.0.1",
            "http://[::1]",
            "http://169.254.169.254/latest/meta-data",
        ] {
            let denied = check("GET", url, &[], 0).err();
            assert!(
                matches!(&denied, Some(SendError::Denied(why)) if why.contains("filters.f.http.origins")),
                "{url}: {denied:?}"
            );
        }
    }

    #[test]
    fn requests_that_http_does_not_allow_are_refused() {
        let long = format!("https://a.example/{}", "x".repeat(URL_BYTES_MAX));
        let url = "https://a.example/";
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        let invalid: [Case<'_>; 15] = [
            ("GET", "", &[]),
            ("GET", "/x", &[]),
            ("GET", "https://user:secret@a.example/", &[]),
            ("GET", "https://a.example\\@b.example/", &[]),
            ("GET", "http://2130706433/", &[]),
            ("GET", "http://0x7f.1/", &[]),
            ("GET", "http://0177.0.0.1/", &[]),
            ("GET", &long, &[]),
            ("CONNECT", url, &[]),
            ("TRACE", url, &[]),
            ("GET /", url, &[]),
            ("GET", url, &[("host", "b.example")]),
            ("GET", url, &[("content-length", "1")]),
            ("GET", url, &[("via", "1.1 other")]),
            ("GET", url, &[("x-a", "1\r\nx-b: 2")]),
        ];
        for (method, url, headers) in invalid {
            let refused = check(method, url, headers, 0).err();
            assert!(matches!(refused, Some(SendError::Invalid(_))), "{method} {url} {headers:?}: {refused:?}");
        }
        assert!(matches!(check("POST", url, &[], 11).err(), Some(SendError::Limit(_))));
        assert!(matches!(check("GET", url, &[("a", "b"); FIELDS_MAX + 1], 0).err(), Some(SendError::Limit(_))));
    }
}
