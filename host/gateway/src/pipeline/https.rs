//! What a listener does about plain text: `redirect_to_https` and `hsts`.
//!
//! The redirect precedes routing, because any route with a host or a path would be more specific
//! than a route that redirects. Requests for ACME challenges pass: the authority that asks for them
//! accepts plain text, and the listener with TLS may not have a certificate yet (RFC 8555, section
//! 8.3). This module does not know: routes, filters, sockets.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::redirect;
use witgate_config::Listener;
use witgate_http::error::{Error, Kind};
use witgate_runtime::exchange::{Request, Response};

const ACME_CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The settings of a listener that the exchanges of its connections need.
#[derive(Debug, Default)]
pub struct ListenerPolicy {
    redirect: Option<(StatusCode, u16)>,
    hsts: Option<HeaderValue>,
}

impl ListenerPolicy {
    /// The policy of a configured listener.
    pub fn new(listener: &Listener) -> Self {
        Self {
            redirect: listener.redirect_to_https.as_ref().map(|to| (to.status, to.port)),
            hsts: listener.hsts.as_ref().and_then(|hsts| HeaderValue::try_from(hsts.field_value()).ok()),
        }
    }

    /// The redirect for a request that came by http. `None` if the request is to be served. A
    /// trusted proxy may have received it by https.
    pub(super) fn redirect(&self, request: &Request) -> Result<Option<Response>, Error> {
        let Some((status, port)) = self.redirect else { return Ok(None) };
        if redirect::is_https(request) || request.target.path().starts_with(ACME_CHALLENGES) {
            return Ok(None);
        }
        let host = redirect::host_without_port(request)?;
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let location = format!("https://{host}{port}{}", request.target);
        let wrong = |_| Error::new(Kind::BadRequest, format!("the redirect's location {location:?} is not valid"));
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(header::LOCATION, HeaderValue::from_str(&location).map_err(wrong)?);
        Ok(Some(Response { status, headers, local: true, body: Some(Bytes::new()) }))
    }

    /// Adds `strict-transport-security`, unless the response has one (RFC 6797, section 7.1).
    pub(super) fn add_hsts(&self, headers: &mut HeaderMap) {
        if let Some(hsts) = &self.hsts
            && !headers.contains_key(header::STRICT_TRANSPORT_SECURITY)
        {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }
}
