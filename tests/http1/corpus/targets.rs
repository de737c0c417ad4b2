//! Forms of the request target (RFC 9112, section 3.2; RFC 3986): origin, absolute, authority and
//! asterisk form; and bytes that are not allowed in a URI.

use crate::case::Expect::{Either, Forward, LocalReply, Reject};
use crate::case::{self, Case, Expect};

/// Title, deciding section, expected reaction, target, and the target that may be forwarded.
type Row = (&'static str, &'static str, Expect, &'static [u8], &'static str);

const TARGETS: &[Row] = &[
    ("origin form", "9112 3.2.1", Forward, b"/case", "/case"),
    ("root", "9112 3.2.1", Forward, b"/", "/"),
    ("query", "9112 3.2.1", Forward, b"/case?a=b", "/case?a=b"),
    ("query empty", "3986 3.4", Forward, b"/case?", "/case?"),
    ("query with a question mark", "3986 3.4", Forward, b"/case?a?b", "/case?a?b"),
    ("query with slashes and dots", "3986 3.4", Forward, b"/case?a=/../b//c", "/case?a=/../b//c"),
    ("query encoded", "3986 2.1", Forward, b"/case?a=%20%2F", "/case?a=%20%2F"),
    ("query without path", "9112 3.2.1", LocalReply, b"?a=b", ""),
    ("relative path", "9112 3.2.1", LocalReply, b"case", ""),
    ("dot path", "9112 3.2.1", LocalReply, b"./case", ""),
    ("dot dot path", "9112 3.2.1", LocalReply, b"../case", ""),
    ("backslash path", "9112 3.2.1", LocalReply, b"\\case", ""),
    ("fragment", "9112 3.2", LocalReply, b"/case#a", ""),
    ("fragment in the query", "9112 3.2", LocalReply, b"/case?a#b", ""),
    ("only a fragment", "9112 3.2", LocalReply, b"#a", ""),
    ("two slashes and a host", "9112 3.2.1", Either, b"//other.test/case", "/other.test/case"),
    ("asterisk with GET", "9112 3.2.4", LocalReply, b"*", ""),
    ("asterisk and a path", "9112 3.2.4", LocalReply, b"*/case", ""),
    ("authority form with GET", "9112 3.2.3", LocalReply, b"t.test:80", ""),
    ("authority without port", "9112 3.2.3", LocalReply, b"t.test", ""),
    ("absolute form", "9112 3.2.2", Forward, b"http://t.test/case", "/case"),
    ("absolute form with query", "9112 3.2.2", Forward, b"http://t.test/case?a=b", "/case?a=b"),
    ("absolute form without path", "9112 3.2.2", Forward, b"http://t.test", "/"),
    ("absolute form without path, query", "9112 3.2.2", Forward, b"http://t.test?a=b", "/?a=b"),
    ("absolute form in upper case", "3986 3.1", Forward, b"HTTP://T.TEST/case", "/case"),
    ("absolute form with dots", "3986 5.2.4", Forward, b"http://t.test/a/../case", "/case"),
    ("absolute form with fragment", "9112 3.2", LocalReply, b"http://t.test/case#a", ""),
    ("absolute form without host", "9110 4.2.1", LocalReply, b"http:///case", ""),
    ("absolute form with only a port", "9110 4.2.1", LocalReply, b"http://:80/case", ""),
    ("absolute form with userinfo", "9110 4.2.4", LocalReply, b"http://user:pw@t.test/case", ""),
    ("absolute form with empty userinfo", "9110 4.2.4", LocalReply, b"http://@t.test/case", ""),
    ("absolute form with a host as userinfo", "9110 4.2.4", LocalReply, b"http://t.test@other.test/case", ""),
    ("absolute form with a backslash", "3986 3.2", LocalReply, b"http://t.test\\@other.test/case", ""),
    ("absolute form with an empty port", "3986 3.2.3", Either, b"http://t.test:/case", "/case"),
    ("absolute form with a port of letters", "3986 3.2.3", LocalReply, b"http://t.test:8a/case", ""),
    ("absolute form with port 99999", "3986 3.2.3", LocalReply, b"http://t.test:99999/case", ""),
    ("absolute form with two ports", "3986 3.2.3", LocalReply, b"http://t.test:80:80/case", ""),
    ("absolute form with one slash", "9110 4.2.1", LocalReply, b"http:/t.test/case", ""),
    ("absolute form without slashes", "9110 4.2.1", LocalReply, b"http:t.test/case", ""),
    ("absolute form with three slashes", "9110 4.2.1", LocalReply, b"http:///t.test/case", ""),
    ("absolute form, https on cleartext", "9110 7.4", Either, b"https://t.test/case", "/case"),
    ("absolute form, ftp", "9110 7.4", LocalReply, b"ftp://t.test/case", ""),
    ("absolute form, file", "9110 7.4", LocalReply, b"file:///etc/passwd", ""),
    ("absolute form, javascript", "9110 7.4", LocalReply, b"javascript:alert(1)", ""),
    ("absolute form, IPv6 unclosed", "3986 3.2.2", LocalReply, b"http://[::1/case", ""),
    ("absolute form, no scheme", "9112 3.2", LocalReply, b"://t.test/case", ""),
    ("NUL", "3986 2", Reject, b"/ca\0se", ""),
    ("tab", "3986 2", Reject, b"/ca\tse", ""),
    ("DEL", "3986 2", Reject, b"/ca\x7fse", ""),
    ("bare CR", "9112 2.2", Reject, b"/ca\rse", ""),
    ("bare LF", "9112 2.2", Reject, b"/ca\nse", ""),
    ("backslash in the path", "3986 2", Either, b"/case\\..\\a", "/case%5C..%5Ca"),
    ("UTF-8", "3986 2", Either, b"/caf\xc3\xa9", "/caf%C3%A9"),
    ("Latin-1", "3986 2", Either, b"/caf\xe9", "/caf%E9"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = TARGETS
        .iter()
        .map(|(name, rule, expect, target, forwarded)| {
            let case = case::new(*expect, *name, rule, case::target(target));
            if forwarded.is_empty() { case } else { case.target(forwarded) }
        })
        .collect();
    let whole = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\n{more}\r\n");
    cases.extend([
        case::forward(
            "absolute form, different Host",
            "9112 3.2.2",
            whole("http://t.test/case", "Host: other.test\r\n"),
        )
        .target("/case")
        .field("host", "t.test"),
        case::forward(
            "absolute form, different port in Host",
            "9112 3.2.2",
            whole("http://t.test:81/case", "Host: t.test\r\n"),
        )
        .field("host", "t.test:81"),
        case::forward("absolute form, IPv6", "3986 3.2.2", whole("http://[::1]:80/case", "Host: [::1]:80\r\n"))
            .target("/case"),
        case::local_reply("absolute form, no Host", "9112 3.2", whole("http://t.test/case", "")),
        case::local_reply("absolute form, invalid Host", "9112 3.2", whole("http://t.test/case", "Host: a b\r\n")),
        case::local_reply(
            "absolute form, two Hosts",
            "9112 3.2",
            whole("http://t.test/case", "Host: t.test\r\nHost: t.test\r\n"),
        ),
        case::local_reply(
            "absolute form, Host with userinfo",
            "9112 3.2",
            whole("http://t.test/case", "Host: a@t.test\r\n"),
        ),
        case::forward("absolute form, HTTP/1.0 without Host", "9112 3.2", *b"GET http://t.test/case HTTP/1.0\r\n\r\n")
            .field("host", "t.test"),
        case::either("asterisk with OPTIONS", "9112 3.2.4", *b"OPTIONS * HTTP/1.1\r\nHost: t.test\r\n\r\n")
            .target("*")
            .status(&[200, 204]),
        case::either(
            "OPTIONS in absolute form without path",
            "9112 3.2.4",
            *b"OPTIONS http://t.test HTTP/1.1\r\nHost: t.test\r\n\r\n",
        )
        .targets(&["*", "/"])
        .status(&[200, 204]),
        case::forward("OPTIONS with a path", "9110 9.3.7", *b"OPTIONS /case HTTP/1.1\r\nHost: t.test\r\n\r\n")
            .target("/case"),
        case::new(
            LocalReply,
            "asterisk with POST",
            "9112 3.2.4",
            *b"POST * HTTP/1.1\r\nHost: t.test\r\nContent-Length: 0\r\n\r\n",
        ),
    ]);
    cases.extend(sweep());
    cases
}

/// Inserts every byte into a path and into a query.
fn sweep() -> Vec<Case> {
    let mut cases = vec![];
    for byte in 0..=255_u8 {
        let place = |before: &str, after: &str| case::target(&[before.as_bytes(), &[byte], after.as_bytes()].concat());
        let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
        let expect = match byte {
            b'#' | b'%' => LocalReply,
            0..=b' ' | 0x7f => Reject,
            _ if plain || byte == b'?' => Forward,
            _ => Either,
        };
        cases.push(
            case::new(expect, format!("sweep: a byte in the path 0x{byte:02x}"), "3986 3.3", place("/ca", "se"))
                .in_sweep(),
        );
        let expect = if byte == b'%' { Either } else { expect };
        cases.push(
            case::new(expect, format!("sweep: a byte in the query 0x{byte:02x}"), "3986 3.4", place("/case?a", "b"))
                .in_sweep(),
        );
    }
    cases
}
