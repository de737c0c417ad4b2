//! What a listener does about plain text: `redirect_to_https` and `hsts`.
//!
//! The redirect precedes routing, because any route with a host or a path would be more specific
//! than a route that redirects; `redirect.rs` makes it. This module does not know: routes, filters,
//! sockets.

use http::HeaderMap;
use http::header::{self, HeaderValue};

use witgate_config::{Listener, RedirectToHttps};

/// The settings of a listener that the exchanges of its connections need.
#[derive(Debug, Default)]
pub struct ListenerPolicy {
    /// Where requests that came by http are sent.
    pub redirect_to_https: Option<RedirectToHttps>,
    hsts: Option<HeaderValue>,
}

impl ListenerPolicy {
    /// The policy of a configured listener.
    pub fn new(listener: &Listener) -> Self {
        Self {
            redirect_to_https: listener.redirect_to_https.clone(),
            hsts: listener.hsts.as_ref().and_then(|hsts| HeaderValue::try_from(hsts.field_value()).ok()),
        }
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
