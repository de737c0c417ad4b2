//! The request as the upstream gets it, and the upstream's response as filters get it.
//!
//! This module does not know: which upstream, and how a request is sent.

use http::StatusCode;
use http::header;

use witgate_http::body::Body;
use witgate_http::semantics::fields::strip_connection_fields;
use witgate_runtime::exchange::{Exchange, Response, Upgrade};

/// Makes the upstream's request. With `copies_headers` it clones the header fields, so that the
/// response phase can read them; otherwise it takes them out of the exchange.
pub fn to_upstream(exchange: &mut Exchange, body: Body, copies_headers: bool) -> http::Request<Body> {
    let own = &mut exchange.request;
    let own_body = own.body.clone().filter(|_| own.upgrade.is_none());
    let mut request = http::Request::new(own_body.map_or(body, Body::full));
    *request.method_mut() = own.method.clone();
    *request.uri_mut() = own.target.clone().into();
    *request.headers_mut() = if copies_headers { own.headers.clone() } else { std::mem::take(&mut own.headers) };
    if let Some(upgrade) = own.upgrade.take() {
        request.extensions_mut().insert::<Upgrade>(upgrade);
    }
    request
}

/// Takes the upstream's response apart, without the fields of its connection.
pub fn from_upstream(response: http::Response<Body>) -> (Response, Body) {
    let (mut head, body) = response.into_parts();
    let protocol = head.headers.remove(header::UPGRADE);
    let named = strip_connection_fields(&mut head.headers);
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(protocol)) = (head.status, protocol) {
        head.headers.insert(header::UPGRADE, protocol);
    }
    (Response { status: head.status, headers: head.headers, local: false, body: None }, body.without_trailers(named))
}
