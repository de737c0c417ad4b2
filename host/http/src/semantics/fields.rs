//! Fields that do not go on as they came: those of one connection, those that imitate others, those that are no trailers, and hosts that are none; and what a list field holds.
//!
//! Must not know: anything of the gateway.

use http::header::{self, HeaderMap, HeaderName};

/// Fields that a peer cannot have removed by naming them in `connection`: without them the message would mean something else.
const KEPT: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::AUTHORIZATION,
    header::COOKIE,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
];

/// Whether a list field has this member, however written (RFC 9110, section 5.6.1): on any of its lines.
pub fn has_member(headers: &HeaderMap, field: HeaderName, member: &str) -> bool {
    headers
        .get_all(field)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|own| own.trim_ascii().eq_ignore_ascii_case(member.as_bytes()))
}

/// Removes what concerns one connection only, and what `connection` names (RFC 9110, section 7.6.1).
pub fn strip_connection_fields(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !KEPT.contains(name) && !name.as_str().starts_with("x-forwarded-"))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER] {
        headers.remove(name);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS] {
        headers.remove(name);
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes fields that differ only by an underscore from one that the gateway writes or upstreams rely on: CGI and its heirs would read both as one
/// name, so `x_forwarded_for` could speak for the gateway.
pub fn drop_imitations(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| memchr::memchr(b'_', name.as_str().as_bytes()).is_some()) {
        return;
    }
    let imitates = |name: &&HeaderName| {
        let plain = name.as_str().replace('_', "-");
        if name.as_str().bytes().filter(u8::is_ascii_alphanumeric).eq(*b"host") {
            return name.as_str() != "host";
        }
        plain != name.as_str()
            && (plain.starts_with("x-forwarded-")
                || plain.starts_with("x-real-")
                || plain.starts_with("proxy-")
                || matches!(
                    plain.as_str(),
                    "forwarded"
                        | "host"
                        | "via"
                        | "connection"
                        | "content-length"
                        | "content-type"
                        | "transfer-encoding"
                        | "authorization"
                        | "cookie"
                        | "x-request-id"
                        | "keep-alive"
                        | "http2-settings"
                ))
    };
    let found: Vec<HeaderName> = headers.keys().filter(imitates).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Whether a name is `content-length` or `transfer-encoding` but for a character that some parser drops or takes for a hyphen: CGI and its heirs read `content_length` as
/// the real one, and others are known that skip what they do not like.
pub fn imitates_framing(name: &str) -> bool {
    // The plain names are 14 and 17 long; nothing shorter than their letters can imitate them.
    if !(13..=20).contains(&name.len()) {
        return false;
    }
    let letters = || name.bytes().filter(u8::is_ascii_alphanumeric);
    (letters().eq(*b"contentlength") && name != "content-length")
        || (letters().eq(*b"transferencoding") && name != "transfer-encoding")
}

/// Removes what is no trailer: fields of framing, routing and authentication (RFC 9110, section 6.5.1).
pub fn drop_no_trailers(trailers: &mut HeaderMap) {
    for name in [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::TRAILER,
        header::TE,
        header::CONNECTION,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::CACHE_CONTROL,
        header::EXPECT,
        header::MAX_FORWARDS,
        header::RANGE,
        header::LOCATION,
        header::FORWARDED,
    ] {
        trailers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
        trailers.remove(name);
    }
}

/// What the library for HTTP/2 lets pass and RFC 9113, section 8.2.1 forbids, and names that HTTP/1 would refuse. The error says what is wrong.
pub fn check_http2(fields: &HeaderMap) -> Result<(), &'static str> {
    let padded = |value: &[u8]| matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    if fields.values().any(|value| padded(value.as_bytes())) {
        return Err("a field's value begins or ends with white space");
    }
    if fields.keys().any(|name| imitates_framing(name.as_str())) {
        return Err("a field's name imitates content-length or transfer-encoding");
    }
    if fields.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err("it has more than one content-length");
    }
    Ok(())
}

/// Whether a text is a host with an optional port (RFC 3986, section 3.2; RFC 9110, section 7.2). Names have letters, digits, `-`, `.`, `_` and `~`.
pub fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (None, port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (Some(&text[..end]), &text[end..])
        }
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    host.is_none_or(|host| !host.is_empty() && host.len() <= 255 && host.bytes().all(good))
        && (port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| {
                !port.is_empty()
                    && port.len() <= 5
                    && port.bytes().all(|byte| byte.is_ascii_digit())
                    && port.parse::<u16>().is_ok()
            }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    fn left(fields: &[(&'static str, &'static str)], change: fn(&mut HeaderMap)) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        change(&mut headers);
        let mut left: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn nominated_fields_go_but_not_those_a_peer_must_not_remove() {
        let fields = [
            ("connection", "x-a, close, host, content-length, x-forwarded-proto"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("host", "h"),
            ("x-forwarded-proto", "https"),
            ("content-length", "3"),
            ("keep-alive", "1"),
            ("te", "trailers"),
        ];
        assert_eq!(left(&fields, strip_connection_fields), ["content-length", "host", "x-b", "x-forwarded-proto"]);
    }

    #[test]
    fn imitations_go() {
        let fields = [("x_forwarded_for", "1"), ("x-forwarded_proto", "1"), ("x_own", "1"), ("content_type", "a")];
        assert_eq!(left(&fields, drop_imitations), ["x_own"]);
    }

    #[test]
    fn what_http_1_would_refuse_is_refused_in_http_2() {
        let check = |name: &'static str, value: &'static str| {
            check_http2(&HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]))
        };
        for (name, value) in
            [("x-a", " 1"), ("x-a", "1\t"), ("x-a", " "), ("content_length", "1"), ("transfer.encoding", "chunked")]
        {
            assert!(check(name, value).is_err(), "{name}: {value:?}");
        }
        for (name, value) in [("x-a", "1 2"), ("x-a", ""), ("content-length", "1"), ("content-language", "en")] {
            assert!(check(name, value).is_ok(), "{name}: {value:?}");
        }
    }

    #[test]
    fn a_list_may_have_more_lines_than_one() {
        let lines = [b"a,\tCLOSE ,b".as_slice(), b"\xff", b"keep-alive"];
        let field = |line: &&[u8]| HeaderValue::from_bytes(line).ok().map(|value| (header::CONNECTION, value));
        let headers = HeaderMap::from_iter(lines.iter().filter_map(field));
        for (member, held) in [("close", true), ("keep-alive", true), ("a", true), ("clos", false), ("a,", false)] {
            assert_eq!(has_member(&headers, header::CONNECTION, member), held, "{member}");
        }
        assert!(!has_member(&headers, header::TE, "a"));
    }

    #[test]
    fn hosts() {
        for good in ["a", "a.b:80", "[::1]", "[::1]:8080", "127.0.0.1:1", "a_b"] {
            assert!(is_host(good), "{good}");
        }
        for bad in
            ["", ":80", "a:", "a:b", "a:99999", "a b", "a,b", "a@b", "[::1", "[x]", "::1", "a/b", "a:1:2", "[::1]x"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
