//! Turns a request as it arrived into the request that filters and upstreams see, or refuses it.
//!
//! Every duty of a gateway towards a request's head that needs no route (RFC 9110, section 7) is
//! here, once for both versions of HTTP: one host, one normalized path, no fields of the client's
//! connection, fields that name the client, and a `Via` entry. Later steps see only the result.
//! This module does not know: routes, filters, sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Parts, PathAndQuery, Scheme};
use http::{Method, Version};
use http_body::Body as _;

use crate::tls::covers_authority;
use witgate_config::Config;
use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::fields::{drop_underscore_lookalikes, is_continue, is_host, strip_connection_fields};
use witgate_http::semantics::forwarded;
use witgate_http::semantics::path::{self, Slashes};
use witgate_runtime::exchange::{Client, Passed, Request, Upgrade};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;
/// A request that has passed a witgate this many times is in a loop.
const HOPS_MAX: usize = 8;

/// A request that is ready for its route.
pub(super) struct NormalizedRequest {
    pub(super) request: Request,
    pub(super) body: Body,
    /// The peer, or the client that a trusted proxy names.
    pub(super) client: Arc<Client>,
    /// Whether the gateway itself answers (`OPTIONS *`, `Max-Forwards: 0`), and no route.
    pub(super) is_for_gateway: bool,
    /// What the request has passed.
    pub(super) passed: Passed,
    /// Fields that the client wants to be removed, if its request may have trailers.
    pub(super) edited_fields: Option<Vec<HeaderName>>,
}

/// Normalizes a request. `id` is the exchange's, for `X-Request-Id` unless a trusted proxy gives
/// one.
pub(super) fn normalize(
    request: http::Request<Body>,
    client: &Arc<Client>,
    config: &Config,
    id: &HeaderValue,
) -> Result<NormalizedRequest, Error> {
    let (mut head, body) = request.into_parts();
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Error::new(Kind::MethodNotAllowed, format!("{} is not served", head.method)));
    }
    let uri = std::mem::take(&mut head.uri).into_parts();
    // The parser of HTTP/1 has refused others already.
    if head.headers.get_all(header::EXPECT).iter().any(|value| !is_continue(value)) {
        return Err(Error::new(Kind::ExpectationFailed, "an expectation other than 100-continue"));
    }
    let named = strip_connection_fields(&mut head.headers);
    drop_underscore_lookalikes(&mut head.headers);
    set_host(&mut head.headers, &uri, head.version)?;
    check_connection(&head.headers, client)?;
    let target = normalize_target(uri, slashes(config))?;
    if target.path() == "*" && head.method != Method::OPTIONS {
        return Err(bad("only OPTIONS has the target *"));
    }
    let is_last_hop = decrement_max_forwards(&head.method, &mut head.headers)?;
    join_cookies(&mut head.headers);
    // The lines of HTTP/1.1 were counted on arrival. Cookies that HTTP/2 split count as one line.
    if head.headers.len() > config.limits.request_fields {
        let detail = format!("more than {} header lines (limits.request_fields)", config.limits.request_fields);
        return Err(Error::new(Kind::HeadTooLarge, detail));
    }
    let upgrade = head.extensions.remove::<Upgrade>();
    // The limit is for bodies; what follows an upgrade has no length.
    let body = if upgrade.is_some() {
        body
    } else {
        body.limited(config.limits.request_body_bytes, "limits.request_body_bytes")?
    };
    let is_streamed = body.buffered().is_none() && upgrade.is_none();
    let may_have_trailers = is_streamed && (head.version == Version::HTTP_2 || body.size_hint().exact().is_none());
    let client = set_client_fields(&mut head.headers, client, config, id);
    let passed = add_via(&mut head.headers, head.version)?;
    let is_for_gateway = is_last_hop || target.path() == "*";
    let tls = client.tls.is_some();
    let request = Request { method: head.method, tls, target, headers: head.headers, body: None, upgrade };
    let edited_fields = may_have_trailers.then_some(named);
    Ok(NormalizedRequest { request, body, client, is_for_gateway, passed, edited_fields })
}

/// Leaves exactly one valid `host`. A target's authority takes precedence over the field (RFC 9112,
/// section 3.2.2); in HTTP/2 the two must agree (RFC 9113, section 8.3.1).
fn set_host(headers: &mut HeaderMap, uri: &Parts, version: Version) -> Result<(), Error> {
    let mut sent = headers.get_all(header::HOST).iter();
    let (first, more) = (sent.next(), sent.next().is_some());
    if more {
        return Err(bad("a request has exactly one host (RFC 9112, section 3.2)"));
    }
    let first = match first.map(HeaderValue::to_str) {
        None => None,
        Some(Ok("")) => Some(""),
        Some(Ok(host)) if is_host(without_empty_port(host)) => Some(without_empty_port(host)),
        Some(_) => return Err(bad("its host is not a host name with an optional port")),
    };
    match (&uri.authority, first) {
        (Some(authority), sent) => {
            let authority = without_empty_port(authority.as_str());
            if !is_host(authority) {
                return Err(bad("its target's host is not a host name with an optional port"));
            }
            let is_h2 = version == Version::HTTP_2;
            if is_h2 && sent.is_some_and(|sent| !is_same_host(sent, authority, uri.scheme.as_ref())) {
                return Err(bad("its :authority and its host differ"));
            }
            if version == Version::HTTP_11 && sent.is_none() {
                return Err(bad("a request has exactly one host (RFC 9112, section 3.2)"));
            }
            let host = HeaderValue::from_str(authority).map_err(|_| bad("its target's host is not valid"))?;
            headers.insert(header::HOST, host);
        }
        (None, Some(sent)) if !sent.is_empty() => {
            if headers.get(header::HOST).is_none_or(|own| own.len() != sent.len()) {
                let host = HeaderValue::from_str(sent).map_err(|_| bad("its host is not valid"))?;
                headers.insert(header::HOST, host);
            }
        }
        // HTTP/1.0 has no host. The upstream gets HTTP/1.1, with an empty one.
        (None, _) if version == Version::HTTP_10 => {
            headers.insert(header::HOST, HeaderValue::from_static(""));
        }
        (None, _) => return Err(bad("a request has exactly one host, not an empty one (RFC 9112, section 3.2)")),
    }
    Ok(())
}

/// Whether two authorities are the same after normalization: without case and the scheme's own port
/// (RFC 3986, section 6.2.3).
fn is_same_host(a: &str, b: &str, scheme: Option<&Scheme>) -> bool {
    let own_port = if scheme == Some(&Scheme::HTTPS) { ":443" } else { ":80" };
    let bare = |text: &'_ str| text.strip_suffix(own_port).unwrap_or(text).to_ascii_lowercase();
    a.eq_ignore_ascii_case(b) || bare(a) == bare(b)
}

/// The authority without the colon of an empty port, which means the scheme's own port (RFC 3986,
/// section 3.2.3). Anything that is not an authority stays as it is.
fn without_empty_port(authority: &str) -> &str {
    match authority.strip_suffix(':') {
        Some(host) if !host.is_empty() && (host.ends_with(']') || !host.contains(':')) => host,
        _ => authority,
    }
}

/// Refuses a host that the connection's certificate does not cover (RFC 9110, section 7.4). The
/// check precedes routing, so that a request never reaches the filters of another host's route.
fn check_connection(headers: &HeaderMap, client: &Client) -> Result<(), Error> {
    let Some(tls) = &client.tls else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if covers_authority(tls, host) {
        return Ok(());
    }
    let connection = tls.server_name.as_deref().unwrap_or("no name");
    Err(Error::new(Kind::Misdirected, format!("{host}, over a TLS connection that was made for {connection}")))
}

/// What the configuration says about `//` in paths.
pub fn slashes(config: &Config) -> Slashes {
    if config.merge_slashes { Slashes::Merge } else { Slashes::Keep }
}

/// The path in its normal form, and the query unchanged but for characters that are not ASCII.
fn normalize_target(uri: Parts, slashes: Slashes) -> Result<PathAndQuery, Error> {
    if uri.scheme.as_ref().is_some_and(|scheme| !matches!(scheme.as_str(), "http" | "https")) {
        return Err(bad("its scheme is neither http nor https"));
    }
    let target = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    // HTTP/1 targets are ASCII already.
    if !target.as_str().is_ascii()
        && let Some(encoded) = path::encode(target.as_str().as_bytes())
    {
        let target = PathAndQuery::try_from(encoded).map_err(|_| bad("its path is not valid"))?;
        return normalize_ascii(target, slashes);
    }
    normalize_ascii(target, slashes)
}

fn normalize_ascii(target: PathAndQuery, slashes: Slashes) -> Result<PathAndQuery, Error> {
    let normal = path::normalize_with(target.path(), slashes).map_err(bad)?;
    if let Some(query) = target.query()
        && !query.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#')
    {
        return Err(bad("its query has a character that must be encoded"));
    }
    // `http://host?query` has no path.
    if normal == target.path() && target.as_str().starts_with(['/', '*']) {
        return Ok(target);
    }
    let text = match target.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    PathAndQuery::try_from(text).map_err(|_| bad("its path is not valid"))
}

/// Whether the request ends here (RFC 9110, section 7.6.2). Otherwise it has one hop less left.
fn decrement_max_forwards(method: &Method, headers: &mut HeaderMap) -> Result<bool, Error> {
    if *method != Method::OPTIONS || !headers.contains_key(header::MAX_FORWARDS) {
        return Ok(false);
    }
    let hops = headers.get(header::MAX_FORWARDS).and_then(|hops| hops.to_str().ok()?.parse::<u32>().ok());
    let hops = hops.ok_or_else(|| bad("its max-forwards is not a number"))?;
    if let Some(left) = hops.checked_sub(1) {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
    }
    Ok(hops == 0)
}

/// Joins cookies that HTTP/2 split into lines (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Finds out who the client is, and writes the fields that tell it to the upstream. Only a trusted
/// proxy's values of these fields are kept.
fn set_client_fields(headers: &mut HeaderMap, client: &Arc<Client>, config: &Config, id: &HeaderValue) -> Arc<Client> {
    let host = headers.get(header::HOST).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
    let ip = client.address.ip();
    if config.trusted_proxies.is_empty() || !forwarded::is_trusted(ip, &config.trusted_proxies) {
        config.untrusted_fields.remove_from(headers);
        headers.remove(header::FORWARDED);
        headers.insert(X_FORWARDED_FOR, client.ip_text.clone());
        headers
            .insert(X_FORWARDED_PROTO, HeaderValue::from_static(if client.tls.is_some() { "https" } else { "http" }));
        headers.insert(X_FORWARDED_HOST, host);
        headers.insert(X_REQUEST_ID, id.clone());
        return client.clone();
    }
    let (named, fields) = {
        let lines = |name: &HeaderName| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
        let (x_for, x_proto) = (lines(&X_FORWARDED_FOR), lines(&X_FORWARDED_PROTO));
        let (x_host, own) = (lines(&X_FORWARDED_HOST), lines(&header::FORWARDED));
        let incoming = forwarded::Incoming { x_for: &x_for, x_proto: &x_proto, x_host: &x_host, forwarded: &own };
        let peer = forwarded::Peer { ip, is_tls: client.tls.is_some(), host: host.to_str().unwrap_or_default() };
        let out = forwarded::forward(&peer, &config.trusted_proxies, &incoming);
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let fields = [
            (X_FORWARDED_FOR, value(&out.x_for)),
            (X_FORWARDED_PROTO, value(out.x_proto)),
            (X_FORWARDED_HOST, value(&out.x_host)),
            (header::FORWARDED, value(&out.forwarded)),
        ];
        (out.client, fields)
    };
    for (name, value) in fields {
        match value {
            Some(value) => headers.insert(name, value),
            None => headers.remove(name),
        };
    }
    // Of several lines the first one counts, for the log as for the upstream.
    let own = headers.get(X_REQUEST_ID).filter(|own| is_request_id(own)).unwrap_or(id).clone();
    headers.insert(X_REQUEST_ID, own);
    if named == ip.to_canonical() {
        return client.clone();
    }
    // TLS describes the connection: a proxy vouches for an address, not for a certificate.
    Arc::new(Client { tls: client.tls.clone(), ..Client::new(SocketAddr::new(named, 0)) })
}

/// Adds a `Via` entry (RFC 9110, section 7.6.3), and refuses a request that is in a loop. Returns
/// what the request has passed.
fn add_via(headers: &mut HeaderMap, version: Version) -> Result<Passed, Error> {
    let mut passed = Passed::default();
    if headers.contains_key(header::VIA) {
        passed = Passed::of(headers);
        if usize::from(passed.gateways) + usize::from(passed.calls) >= HOPS_MAX {
            return Err(Error::new(Kind::Loop, format!("the request passed a witgate {HOPS_MAX} times")));
        }
    }
    let own = match version {
        Version::HTTP_2 => "2.0 witgate",
        Version::HTTP_10 => "1.0 witgate",
        _ => "1.1 witgate",
    };
    headers.append(header::VIA, HeaderValue::from_static(own));
    Ok(passed)
}

/// Whether a trusted proxy's request id is used. Its characters need no escape in JSON, in a
/// structured field and in a log.
fn is_request_id(id: &HeaderValue) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(is_allowed)
}

fn bad(why: &'static str) -> Error {
    Error::new(Kind::BadRequest, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(
        uri: &str,
        version: Version,
        fields: &[(&'static str, &'static str)],
    ) -> Result<NormalizedRequest, Kind> {
        let config = Config::parse(
            "trusted_proxies: [10.0.0.0/8]\nupstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]",
            "f",
            std::path::Path::new("/"),
        );
        let config = config.map_err(|_| Kind::Internal)?;
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = uri.parse().map_err(|_| Kind::Internal)?;
        *request.version_mut() = version;
        for (name, value) in fields {
            request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let peer = fields.iter().find(|field| field.0 == "peer").map_or("192.0.2.1", |field| field.1);
        let address = SocketAddr::new(peer.parse().map_err(|_| Kind::Internal)?, 1);
        normalize(request, &Arc::new(Client::new(address)), &config, &HeaderValue::from_static("7"))
            .map_err(|error| error.kind)
    }

    #[test]
    fn one_host_and_one_path() -> Result<(), Kind> {
        let one = normalized("/a/../b//c%41?x=1", Version::HTTP_11, &[("host", "h:1")])?;
        assert_eq!((one.request.target.as_str(), one.request.authority()), ("/b/cA?x=1", "h:1"));
        assert_eq!(normalized("http://a/", Version::HTTP_11, &[("host", "b")])?.request.authority(), "a");
        assert_eq!(normalized("http://a/", Version::HTTP_2, &[("host", "b")]).err(), Some(Kind::BadRequest));
        assert_eq!(normalized("/", Version::HTTP_11, &[]).err(), Some(Kind::BadRequest));
        assert_eq!(normalized("/", Version::HTTP_11, &[("host", "a"), ("host", "a")]).err(), Some(Kind::BadRequest));
        assert_eq!(normalized("/", Version::HTTP_11, &[("host", "a b")]).err(), Some(Kind::BadRequest));
        assert_eq!(normalized("/%00", Version::HTTP_11, &[("host", "a")]).err(), Some(Kind::BadRequest));
        Ok(())
    }

    #[test]
    fn forwarding_fields_of_an_untrusted_client_are_replaced() -> Result<(), Kind> {
        let sent =
            [("host", "h"), ("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4"), ("x-request-id", "mine")];
        let own = normalized("/", Version::HTTP_11, &sent)?;
        assert_eq!(own.request.headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(
            (own.request.headers.get("forwarded"), &own.request.headers["x-request-id"]),
            (None, &HeaderValue::from_static("7"))
        );
        let mut trusted = sent.to_vec();
        trusted.push(("peer", "10.1.1.1"));
        let through = normalized("/", Version::HTTP_11, &trusted)?;
        assert_eq!(through.client.address.ip().to_string(), "1.2.3.4");
        assert_eq!(through.request.headers["x-forwarded-for"], "1.2.3.4, 10.1.1.1");
        assert_eq!(through.request.headers["x-request-id"], "mine");
        for invalid in ["", "a b", "a\"b", "a,b", &"x".repeat(129)] {
            let mut invalid_id = trusted.clone();
            let value: &'static str = String::leak(invalid.to_owned());
            invalid_id.retain(|field| field.0 != "x-request-id");
            invalid_id.push(("x-request-id", value));
            let replaced = normalized("/", Version::HTTP_11, &invalid_id)?;
            assert_eq!(replaced.request.headers["x-request-id"], "7", "{invalid:?}");
        }
        Ok(())
    }

    #[test]
    fn fields_that_only_a_proxy_sets_are_removed_from_untrusted_peers() -> Result<(), Kind> {
        let names =
            ["x-forwarded-port", "x-forwarded-client-cert", "x-real-ip", "client-cert", "x-original-url", "proxy"];
        let mut sent = vec![("host", "h"), ("x-own", "1")];
        sent.extend(names.map(|name| (name, "1")));
        let own = normalized("/", Version::HTTP_11, &sent)?;
        assert!(names.iter().all(|name| !own.request.headers.contains_key(*name)), "{:?}", own.request.headers);
        assert!(own.request.headers.contains_key("x-own"));
        sent.push(("peer", "10.1.1.1"));
        let through = normalized("/", Version::HTTP_11, &sent)?;
        assert!(names.iter().all(|name| through.request.headers.contains_key(*name)), "a trusted proxy sets them");
        Ok(())
    }

    #[test]
    fn an_empty_port_is_no_port() -> Result<(), Kind> {
        for (sent, host) in [("h.test:", "h.test"), ("[::1]:", "[::1]"), ("h.test:80", "h.test:80")] {
            assert_eq!(normalized("/", Version::HTTP_11, &[("host", sent)])?.request.authority(), host);
        }
        for bad in [":", "h::", "h:80:", "[::1]:80:", "::1:"] {
            assert_eq!(normalized("/", Version::HTTP_11, &[("host", bad)]).err(), Some(Kind::BadRequest), "{bad}");
        }
        Ok(())
    }

    #[test]
    fn hops_are_counted() -> Result<(), Kind> {
        let via = "1.1 witgate, 1.1 witgate, 1.1 witgate, 1.1 witgate";
        assert!(normalized("/", Version::HTTP_11, &[("host", "h"), ("via", via)]).is_ok());
        let looped = normalized("/", Version::HTTP_11, &[("host", "h"), ("via", via), ("via", via)]);
        assert_eq!(looped.err(), Some(Kind::Loop));
        let mut headers = HeaderMap::from_iter([(header::VIA, HeaderValue::from_static("1.0 other, 1.1 witgate"))]);
        let passed = add_via(&mut headers, Version::HTTP_11).map_err(|error| error.kind)?;
        assert_eq!((passed.gateways, passed.calls), (1, 0));
        Ok(())
    }
}
