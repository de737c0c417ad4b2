//! Compresses responses: decides whether and with which coding (RFC 9110, section 12.5.3), and
//! changes the head.
//!
//! Compression is the last step before the client, so filters see plain bodies. Some responses stay
//! as they are: encoded or partial content, content whose sender forbids a transformation, short
//! bodies, and types that the route does not name. A compressed response is another representation:
//! its strong validator becomes weak, its length and digests are removed, and `Vary` tells caches.
//! `encoder.rs` has the codecs. This module does not know: routes, upstreams.

mod encoder;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;

use encoder::Encoder;
use witgate_config::{Compression, Encoding};
use witgate_http::body::Body;
use witgate_http::semantics::fields::has_member;

/// Digests of the bytes that the upstream sent (RFC 9530, and before it RFC 3230 and 1864).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// The coding that a request allows. It is for [`apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiatedCoding {
    /// None if the client accepts none of the route's codings, or prefers the plain body.
    encoding: Option<Encoding>,
    /// The response must not change: the request forbids a transformation (RFC 9111, section
    /// 5.2.1.6).
    is_forbidden: bool,
    /// The response has the fields of the response to GET, and no body.
    is_head: bool,
    /// What the client has stored (`if-none-match`, its first line).
    stored: Option<HeaderValue>,
}

/// The coding with the highest weight. Of equal weights the route's order decides.
pub fn negotiate(policy: &Compression, method: &Method, request: &HeaderMap) -> NegotiatedCoding {
    let (mut best, mut weight) = (None, 1);
    let accepted = || request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    if let Some(identity) = weight_of(accepted(), "identity").filter(|_| request.contains_key(header::ACCEPT_ENCODING))
    {
        weight = weight.max(identity);
    }
    for encoding in &policy.encodings {
        let own = weight_of(accepted(), name(*encoding)).or_else(|| weight_of(accepted(), "*")).unwrap_or(0);
        if own > weight || (own == weight && best.is_none()) {
            (best, weight) = (Some(*encoding), own);
        }
    }
    NegotiatedCoding {
        encoding: best,
        is_forbidden: has_no_transform(request),
        is_head: method == Method::HEAD,
        stored: request.get(header::IF_NONE_MATCH).cloned(),
    }
}

/// Compresses a response, if the response and the client allow it.
pub fn apply(policy: &Compression, coding: NegotiatedCoding, response: http::Response<Body>) -> http::Response<Body> {
    if coding.is_forbidden || !may_be_compressed(policy, &coding, &response) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    if !["accept-encoding", "*"].iter().any(|own| has_member(&head.headers, header::VARY, own)) {
        head.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    let Some(encoding) = coding.encoding else { return http::Response::from_parts(head, body) };
    if head.status == StatusCode::NOT_MODIFIED {
        // The client's stored response is the compressed one, unless it names the strong tag.
        if !coding.has_stored_plain(&head.headers) {
            weaken_tag(&mut head.headers);
        }
        return http::Response::from_parts(head, body);
    }
    change_head(&mut head.headers, encoding);
    if coding.is_head {
        // No coding was applied to what the client gets, which is nothing.
        head.headers.remove(header::CONTENT_ENCODING);
        return http::Response::from_parts(head, body);
    }
    http::Response::from_parts(head, Body::stream(Box::pin(Encoder::new(body, encoding))))
}

impl NegotiatedCoding {
    /// Whether the client has stored the response as the upstream sent it.
    fn has_stored_plain(&self, response: &HeaderMap) -> bool {
        let (Some(stored), Some(tag)) = (&self.stored, response.get(header::ETAG)) else { return false };
        stored.as_bytes().split(|byte| *byte == b',').any(|own| own.trim_ascii() == tag.as_bytes())
    }
}

/// Whether the gateway compresses the response. A response to HEAD and a 304 get the fields that
/// the response to GET would have (RFC 9110, sections 9.3.2 and 15.4.5). A 304 seldom has a type
/// or a length, so an absent one counts as suitable.
fn may_be_compressed(policy: &Compression, coding: &NegotiatedCoding, response: &http::Response<Body>) -> bool {
    let headers = response.headers();
    let status = response.status();
    let is_not_modified = status == StatusCode::NOT_MODIFIED;
    let length = match response.body().size_hint().exact() {
        Some(0) if coding.is_head || is_not_modified => content_length(headers),
        length => length,
    };
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT)
        && !status.is_informational()
        && length.is_none_or(|length| length > 0 && length >= policy.min_bytes as u64)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::CONTENT_RANGE)
        && !has_no_transform(headers)
        && match headers.get(header::CONTENT_TYPE) {
            Some(own) => own.to_str().is_ok_and(|own| has_type(policy, own)),
            None => is_not_modified,
        }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the route names the type. gRPC compresses by itself, so its types never match.
fn has_type(policy: &Compression, own: &str) -> bool {
    let own = own.split(';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    !own.starts_with("application/grpc")
        && policy.types.iter().any(|one| match one.strip_suffix('*') {
            Some(kind) => own.starts_with(kind),
            None => own == *one,
        })
}

fn change_head(headers: &mut HeaderMap, encoding: Encoding) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name(encoding)));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    for digest in &DIGESTS {
        headers.remove(digest);
    }
    weaken_tag(headers);
}

/// A compressed response is not equal byte by byte to the upstream's (RFC 9110, section 8.8.1).
fn weaken_tag(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) {
        match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
            Ok(weak) => headers.insert(header::ETAG, weak),
            Err(_) => headers.remove(header::ETAG),
        };
    }
}

const fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Zstd => "zstd",
        Encoding::Brotli => "br",
        Encoding::Gzip => "gzip",
    }
}

/// The weight of a coding in thousandths. None if the client does not name it.
fn weight_of<'a>(lines: impl Iterator<Item = &'a str>, coding: &str) -> Option<u16> {
    lines.flat_map(|line| line.split(',')).find_map(|item| {
        let (own, parameters) = item.split_once(';').unwrap_or((item, ""));
        let own = own.trim_ascii();
        // The old name of gzip (RFC 9110, section 8.4.1.3).
        let same = own.eq_ignore_ascii_case(coding) || (coding == "gzip" && own.eq_ignore_ascii_case("x-gzip"));
        same.then(|| weight(parameters.trim_ascii()))
    })
}

/// The weight of `q=0.5`, with at most three digits after the point. An invalid weight is 0, which
/// forbids the coding.
fn weight(text: &str) -> u16 {
    if text.is_empty() {
        return 1000;
    }
    let Some(value) = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q=")) else { return 0 };
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let thousandths = format!("{part:0<3}").parse().unwrap_or(0);
    match whole {
        "0" => thousandths,
        "1" if thousandths == 0 => 1000,
        _ => 0,
    }
}

fn has_no_transform(headers: &HeaderMap) -> bool {
    has_member(headers, header::CACHE_CONTROL, "no-transform")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn policy() -> Compression {
        Compression {
            types: vec!["application/json".into(), "text/*".into()],
            min_bytes: 10,
            encodings: vec![Encoding::Zstd, Encoding::Brotli, Encoding::Gzip],
        }
    }

    fn choice(lines: &[&'static str]) -> Option<Encoding> {
        let fields = lines.iter().map(|line| (header::ACCEPT_ENCODING, HeaderValue::from_static(line)));
        negotiate(&policy(), &Method::GET, &fields.collect()).encoding
    }

    #[test]
    fn the_client_chooses() {
        for (accept, expected) in [
            (&["gzip, deflate, br, zstd"][..], Some(Encoding::Zstd)),
            (&["gzip", "br"], Some(Encoding::Brotli)),
            (&["gzip;q=1.0, br;q=0.9"], Some(Encoding::Gzip)),
            (&["gzip;q=0.001"], Some(Encoding::Gzip)),
            (&["x-gzip"], Some(Encoding::Gzip)),
            (&["*"], Some(Encoding::Zstd)),
            (&["*, zstd;q=0"], Some(Encoding::Brotli)),
            (&["*;q=0, gzip"], Some(Encoding::Gzip)),
            (&["identity, gzip;q=0.5"], None),
            (&["identity;q=0.5, gzip;q=1"], Some(Encoding::Gzip)),
            (&["identity;q=0, gzip;q=0.1"], Some(Encoding::Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=2"], None),
            (&["gzip;q=0.0001"], None),
            (&["gzip;x"], None),
            (&["deflate"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(choice(accept), expected, "{accept:?}");
        }
    }

    fn gzip() -> NegotiatedCoding {
        NegotiatedCoding { encoding: Some(Encoding::Gzip), is_forbidden: false, is_head: false, stored: None }
    }

    /// A cache compares the validators of these responses with those of the 200.
    #[test]
    fn head_and_304_have_the_fields_of_the_200() {
        let fields = [("content-type", "text/css"), ("etag", "\"a\"")];
        let shown = |response: &http::Response<Body>| {
            let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
            [text(header::ETAG), text(header::VARY)].map(|own| own.map(str::to_owned))
        };
        let full = apply(&policy(), gzip(), response(200, &fields, 100));
        let long = [&fields[..], &[("content-length", "100")]].concat();
        let head = apply(&policy(), NegotiatedCoding { is_head: true, ..gzip() }, response(200, &long, 0));
        assert_eq!(shown(&head), shown(&full));
        assert!(!head.headers().contains_key(header::CONTENT_LENGTH) && head.body().size_hint().exact() == Some(0));
        let short = [&fields[..], &[("content-length", "9")]].concat();
        let head = apply(&policy(), NegotiatedCoding { is_head: true, ..gzip() }, response(200, &short, 0));
        assert_eq!(shown(&head), [Some("\"a\"".to_owned()), None], "too short for the GET");
        for (stored, tag) in [(None, "W/\"a\""), (Some("W/\"a\""), "W/\"a\""), (Some("\"b\", \"a\""), "\"a\"")] {
            let coding = NegotiatedCoding { stored: stored.map(HeaderValue::from_static), ..gzip() };
            let not_modified = apply(&policy(), coding, response(304, &fields[1..], 0));
            assert_eq!(shown(&not_modified), [Some(tag.to_owned()), Some("Accept-Encoding".to_owned())], "{stored:?}");
        }
        let plain = apply(&policy(), NegotiatedCoding { encoding: None, ..gzip() }, response(304, &fields[1..], 0));
        assert_eq!(shown(&plain), [Some("\"a\"".to_owned()), Some("Accept-Encoding".to_owned())]);
    }

    fn response(status: u16, fields: &[(&'static str, &'static str)], length: usize) -> http::Response<Body> {
        let mut response = http::Response::new(Body::full(Bytes::from(vec![b'x'; length])));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response
    }

    #[test]
    fn only_responses_that_gain_and_may_change_are_compressed() {
        let json = ("content-type", "Application/JSON; charset=utf-8");
        let gzip = gzip();
        let encoded = |response| {
            let response = apply(&policy(), gzip.clone(), response);
            response.headers().get(header::CONTENT_ENCODING).is_some_and(|own| own == "gzip")
        };
        assert!(encoded(response(200, &[json], 10)));
        assert!(encoded(response(404, &[("content-type", "text/html")], 10)));
        for (status, fields, length) in [
            (200, vec![json], 9),
            (200, vec![("content-type", "image/png")], 100),
            (200, vec![("content-type", "application/jsonx")], 100),
            (200, vec![], 100),
            (200, vec![json, ("content-encoding", "br")], 100),
            (200, vec![json, ("cache-control", "public, No-Transform")], 100),
            (206, vec![json], 100),
            (200, vec![json, ("content-range", "bytes 0-1/2")], 100),
            (304, vec![json], 100),
            (204, vec![json], 100),
        ] {
            assert!(!encoded(response(status, &fields, length)), "{status} {fields:?} {length}");
        }
        let head =
            apply(&policy(), NegotiatedCoding { is_forbidden: true, ..gzip.clone() }, response(200, &[json], 100));
        assert!(!head.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn the_head_tells_of_another_representation() {
        let fields = [
            ("content-type", "text/css"),
            ("content-length", "100"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
            ("repr-digest", "sha-256=:AA==:"),
            ("content-digest", "sha-256=:AA==:"),
            ("vary", "Origin"),
        ];
        let plain = apply(&policy(), NegotiatedCoding { encoding: None, ..gzip() }, response(200, &fields, 100));
        assert_eq!(
            plain.headers().get_all(header::VARY).iter().count(),
            2,
            "a cache must know, also of a plain response"
        );
        assert_eq!(plain.headers().get(header::ETAG), Some(&HeaderValue::from_static("\"a\"")));
        let gzip = gzip();
        let encoded = apply(&policy(), gzip, response(200, &fields, 100));
        let names: Vec<_> = encoded.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(encoded.headers().get(header::ETAG), Some(&HeaderValue::from_static("W/\"a\"")));
    }
}
