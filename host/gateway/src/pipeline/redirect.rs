//! Responses that the configuration defines: a redirect, or a status with a text.
//!
//! They take the place of an upstream, so a route's filters see the request and the response as
//! usual. This module does not know: sockets, filters.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Uri};

use witgate_config::{DirectResponse, PathMatch, Redirect, RedirectPath, RedirectToHttps};
use witgate_http::error::{Error, Kind};
use witgate_runtime::exchange::{Request, Response};

const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const ACME_CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The response of a route with `redirect:`. `path_match` is how the route matches the path, and
/// `with_prefix` replaces the matched prefix of a path.
pub fn redirect(
    to: &Redirect,
    path_match: Option<&PathMatch>,
    request: &Request,
    with_prefix: impl Fn(&str, Option<&PathMatch>, &str) -> Option<String>,
) -> Result<Response, Error> {
    let own = request.target.path();
    let path = match &to.path {
        None => own.to_owned(),
        Some(RedirectPath::Whole(path)) => path.clone(),
        Some(RedirectPath::Prefix(prefix)) => with_prefix(own, path_match, prefix).unwrap_or_else(|| own.to_owned()),
    };
    let query = request.target.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = if to.scheme.is_none() && to.host.is_none() {
        // A path that begins with `//` would name another host.
        format!("/{}{query}", path.trim_start_matches('/'))
    } else {
        let scheme = to.scheme.unwrap_or(if is_https(request) { "https" } else { "http" });
        format!("{scheme}://{}{path}{query}", host(to, request)?)
    };
    let wrong = |_| Error::new(Kind::BadRequest, format!("the redirect's location {location:?} is not valid"));
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::LOCATION, HeaderValue::from_str(&location).map_err(wrong)?);
    Ok(Response { status: to.status, headers, local: true, body: Some(Bytes::new()) })
}

/// The redirect of a listener with `redirect_to_https`. `None` if the request is to be served: a
/// trusted proxy received it by https, or it is an ACME challenge, whose sender accepts plain text
/// before there is a certificate (RFC 8555, section 8.3).
pub fn to_https(to: &RedirectToHttps, request: &Request) -> Result<Option<Response>, Error> {
    if is_https(request) || request.target.path().starts_with(ACME_CHALLENGES) {
        return Ok(None);
    }
    let host = host_without_port(request)?;
    let port = if to.port == 443 { String::new() } else { format!(":{}", to.port) };
    let location = format!("https://{host}{port}{}", request.target);
    let wrong = |_| Error::new(Kind::BadRequest, format!("the redirect's location {location:?} is not valid"));
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::LOCATION, HeaderValue::from_str(&location).map_err(wrong)?);
    Ok(Some(Response { status: to.status, headers, local: true, body: Some(Bytes::new()) }))
}

/// The response of a route with `respond:`.
pub fn respond(respond: &DirectResponse) -> Response {
    let mut headers = HeaderMap::with_capacity(2);
    if !respond.body.is_empty() {
        headers.insert(header::CONTENT_TYPE, respond.content_type.clone());
    }
    Response { status: respond.status, headers, local: true, body: Some(Bytes::from(respond.body.clone())) }
}

/// The client's own scheme, also behind a trusted proxy: normalization has set the field.
fn is_https(request: &Request) -> bool {
    request.headers.get(PROTO).map_or(request.tls, |proto| proto == "https")
}

fn host(to: &Redirect, request: &Request) -> Result<String, Error> {
    to.host.clone().map_or_else(|| host_without_port(request), Ok)
}

/// The host that the client used, without the port: another scheme has another port.
fn host_without_port(request: &Request) -> Result<String, Error> {
    let authority = request.authority();
    let uri: Uri = authority.parse().map_err(|_| {
        Error::new(Kind::BadRequest, format!("cannot redirect to {authority:?}: it is not a valid host"))
    })?;
    Ok(uri.host().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn location(to: &Redirect, host: &'static str, target: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        let target = http::uri::PathAndQuery::from_static(target);
        let request = Request { method: http::Method::GET, tls: false, target, headers, body: None, upgrade: None };
        let response = redirect(to, None, &request, |path, _, new| Some(format!("{new}{path}"))).ok()?;
        response.headers.get(header::LOCATION)?.to_str().ok().map(str::to_owned)
    }

    #[test]
    fn parts_that_are_not_configured_stay() {
        let none = Redirect { status: StatusCode::FOUND, scheme: None, host: None, path: None };
        let https = Redirect { scheme: Some("https"), ..none.clone() };
        assert_eq!(location(&https, "a.example:8080", "/x?y=1").as_deref(), Some("https://a.example/x?y=1"));
        assert_eq!(location(&https, "[::1]:8080", "/").as_deref(), Some("https://[::1]/"));
        assert_eq!(location(&https, "a b", "/"), None);
        assert_eq!(location(&https, "", "/"), None);
        let host = Redirect { host: Some("b.example:1".into()), ..none.clone() };
        assert_eq!(location(&host, "a.example", "/x").as_deref(), Some("http://b.example:1/x"));
        let path = Redirect { path: Some(RedirectPath::Whole("/new".into())), ..none.clone() };
        assert_eq!(location(&path, "a", "/x?y").as_deref(), Some("/new?y"));
        let prefix = Redirect { path: Some(RedirectPath::Prefix("/new".into())), ..none };
        assert_eq!(location(&prefix, "a", "/x").as_deref(), Some("/new/x"));
    }
}
