//! Checks and removes fields that must not be forwarded: connection-specific fields, lookalikes of
//! other fields and forbidden trailers. Also checks hosts and searches list fields.
//!
//! This module does not know: anything of the gateway.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Fields that a peer cannot remove by naming them in `connection`, because the message would mean
/// something else without them.
const KEPT: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::AUTHORIZATION,
    header::COOKIE,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
];

/// Whether a list field has `member` on any of its lines, ignoring case (RFC 9110, section 5.6.1).
pub fn has_member(headers: &HeaderMap, field: HeaderName, member: &str) -> bool {
    headers
        .get_all(field)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|own| own.trim_ascii().eq_ignore_ascii_case(member.as_bytes()))
}

/// Removes connection-specific fields, and the fields that `connection` names (RFC 9110, section
/// 7.6.1). Returns the latter, which must not be forwarded as trailers either.
pub fn strip_connection_fields(headers: &mut HeaderMap) -> Vec<HeaderName> {
    let mut named = vec![];
    if headers.contains_key(header::CONNECTION) {
        named = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !KEPT.contains(name) && !name.as_str().starts_with("x-forwarded-"))
            .collect();
        for name in &named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    named
}

/// Whether a value of `expect` is the only expectation that exists (RFC 9110, section 10.1.1).
pub fn is_continue(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// Whether the field concerns one connection only (RFC 9110, section 7.6.1).
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION || HOP_BY_HOP.contains(name)
}

/// Whether only the gateway writes the field: framing, `host`, fields of one connection, and `via`,
/// by which it finds loops.
pub fn is_gateway_field(name: &HeaderName) -> bool {
    is_hop_by_hop(name) || [header::CONTENT_LENGTH, header::HOST, header::VIA].contains(name)
}

/// The fields that concern one connection only, except `connection` itself.
static HOP_BY_HOP: [HeaderName; 7] = [
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HTTP2_SETTINGS,
];

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes fields whose names differ only by underscores from a field that the gateway writes or
/// that upstreams rely on. CGI and its successors map both to one name, so a client could replace
/// the gateway's `x-forwarded-for` by sending `x_forwarded_for`.
pub fn drop_underscore_lookalikes(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| memchr::memchr(b'_', name.as_str().as_bytes()).is_some()) {
        return;
    }
    let is_lookalike = |name: &&HeaderName| {
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
    let found: Vec<HeaderName> = headers.keys().filter(is_lookalike).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Removes a field that only the gateway may set, and those whose names differ from it only by
/// underscores: CGI and its successors map both to one name.
pub fn remove_with_lookalikes(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    let is_lookalike = |other: &&HeaderName| {
        let same = |(one, two): (u8, u8)| one == two || (matches!(one, b'_' | b'-') && matches!(two, b'_' | b'-'));
        other.as_str().len() == name.as_str().len() && other.as_str().bytes().zip(name.as_str().bytes()).all(same)
    };
    let found: Vec<HeaderName> = headers.keys().filter(is_lookalike).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Whether a name differs from `content-length` or `transfer-encoding` only by characters that some
/// parsers drop or take for a hyphen. CGI and its successors read `content_length` as
/// `content-length`.
pub fn resembles_framing_field(name: &str) -> bool {
    // The names have 14 and 17 characters; a lookalike has at least their letters.
    if !(13..=20).contains(&name.len()) {
        return false;
    }
    let letters = || name.bytes().filter(u8::is_ascii_alphanumeric);
    (letters().eq(*b"contentlength") && name != "content-length")
        || (letters().eq(*b"transferencoding") && name != "transfer-encoding")
}

/// Names of fields, some of them as beginnings such as `x-forwarded-*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldNames {
    whole: Vec<String>,
    beginnings: Vec<String>,
    /// A bit for each byte that one of them begins with: most fields need no further comparison.
    first_bytes: u128,
}

impl FieldNames {
    /// Adds a name in lower case, or a beginning that ends with `*`.
    pub fn add(&mut self, name: &str) {
        self.first_bytes |= first_byte(name);
        match name.strip_suffix('*') {
            Some(beginning) => self.beginnings.push(beginning.to_owned()),
            None => self.whole.push(name.to_owned()),
        }
    }

    /// Adds all names of another list.
    pub fn add_all(&mut self, other: &Self) {
        self.whole.extend_from_slice(&other.whole);
        self.beginnings.extend_from_slice(&other.beginnings);
        self.first_bytes |= other.first_bytes;
    }

    /// Whether a name is one of these. Underscores count as hyphens, because CGI and its successors
    /// map both to one name.
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        if self.first_bytes & first_byte(name) == 0 {
            return false;
        }
        let name = if memchr::memchr(b'_', name.as_bytes()).is_some() {
            Cow::Owned(name.replace('_', "-"))
        } else {
            Cow::Borrowed(name)
        };
        self.beginnings.iter().any(|beginning| name.starts_with(beginning))
            || self.whole.iter().any(|own| *own == *name)
    }

    /// Removes the fields with these names.
    pub fn remove_from(&self, headers: &mut HeaderMap) {
        let found: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| self.contains(name)).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }
}

fn first_byte(name: &str) -> u128 {
    name.bytes().next().filter(u8::is_ascii).map_or(0, |byte| 1 << byte)
}

/// Removes fields that must not be trailers: fields of framing, routing and authentication (RFC
/// 9110, section 6.5.1).
pub fn drop_forbidden_trailers(trailers: &mut HeaderMap) {
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

/// Checks HTTP/2 fields for what RFC 9113, section 8.2.1 forbids but the `h2` crate accepts, and
/// for names that an HTTP/1 head could not have. The error is the reason.
pub fn check_http2(fields: &HeaderMap) -> Result<(), &'static str> {
    let padded = |value: &[u8]| matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    if fields.values().any(|value| padded(value.as_bytes())) {
        return Err("a field's value begins or ends with white space");
    }
    if fields.keys().any(|name| resembles_framing_field(name.as_str())) {
        return Err("a field's name resembles content-length or transfer-encoding");
    }
    if fields.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err("it has more than one content-length");
    }
    Ok(())
}

/// Whether a text is a host with an optional port (RFC 3986, section 3.2; RFC 9110, section 7.2). A
/// name has letters, digits, `-`, `.`, `_` and `~`.
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
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    host.is_none_or(|host| !host.is_empty() && host.len() <= 255 && host.bytes().all(is_name_byte))
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
    fn connection_names_fields_to_remove_but_not_essential_ones() {
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
        let strip = |headers: &mut HeaderMap| drop(strip_connection_fields(headers));
        assert_eq!(left(&fields, strip), ["content-length", "host", "x-b", "x-forwarded-proto"]);
    }

    #[test]
    fn lookalikes_are_removed() {
        let fields = [("x_forwarded_for", "1"), ("x-forwarded_proto", "1"), ("x_own", "1"), ("content_type", "a")];
        assert_eq!(left(&fields, drop_underscore_lookalikes), ["x_own"]);
    }

    #[test]
    fn fields_are_removed_by_name_and_by_beginning() {
        let fields =
            [("x-forwarded-port", "1"), ("x_forwarded_ssl", "1"), ("proxy", "1"), ("proxy-a", "1"), ("x-real-ip", "1")];
        let change = |headers: &mut HeaderMap| {
            let mut names = FieldNames::default();
            ["x-forwarded-*", "proxy", "x-real-ip"].iter().for_each(|name| names.add(name));
            names.remove_from(headers);
        };
        assert_eq!(left(&fields, change), ["proxy-a"]);
    }

    #[test]
    fn http2_fields_that_http1_rejects_are_rejected() {
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
    fn a_list_field_may_have_several_lines() {
        let lines = [b"a,\tCLOSE ,b".as_slice(), b"\xff", b"keep-alive"];
        let field = |line: &&[u8]| HeaderValue::from_bytes(line).ok().map(|value| (header::CONNECTION, value));
        let headers = HeaderMap::from_iter(lines.iter().filter_map(field));
        for (member, held) in [("close", true), ("keep-alive", true), ("a", true), ("clos", false), ("a,", false)] {
            assert_eq!(has_member(&headers, header::CONNECTION, member), held, "{member}");
        }
        assert!(!has_member(&headers, header::TE, "a"));
    }

    #[test]
    fn hosts_are_checked() {
        for good in ["a", "a.b:80", "[::1]", "[::1]:8080", "127.0.0.1:1", "a_b"] {
            assert!(is_host(good), "{good}");
        }
        for bad in
            ["", ":80", "a:", "a:b", "a:99999", "a b", "a,b", "a@b", "[::1", "[x]", "::1", "a/b", "a:1:2", "[::1]x"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_field_of_the_gateway_goes_with_its_lookalikes() {
        let mut headers = HeaderMap::new();
        for name in ["x-user-id", "x_user_id", "x-user_id", "x-userxid", "x-user"] {
            headers.insert(HeaderName::from_static(name), http::HeaderValue::from_static("1"));
        }
        remove_with_lookalikes(&mut headers, &HeaderName::from_static("x-user-id"));
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-user", "x-userxid"]);
    }
}
