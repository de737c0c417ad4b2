//! Request lines except the target: method, spaces and version; and size limits of the header
//! section (RFC 9112, section 3; RFC 9110, sections 9 and 15.5).

use crate::case::Expect::{Either, Forward, LocalReply, Reject};
use crate::case::{self, Case, Expect};

/// Title, deciding section, expected reaction, request line.
type Row = (&'static str, &'static str, Expect, &'static [u8]);

/// Each request line is followed by `Host`.
const LINES: &[Row] = &[
    ("HTTP/0.9", "9112 3", Reject, b"GET /case"),
    ("HTTP/0.9 with a space", "9112 3", Reject, b"GET /case "),
    ("version 0.9", "9112 2.3", Reject, b"GET /case HTTP/0.9"),
    ("version 1.0", "9112 2.3", Forward, b"GET /case HTTP/1.0"),
    ("version 1.2", "9110 2.5", Either, b"GET /case HTTP/1.2"),
    ("version 1.9", "9110 2.5", Either, b"GET /case HTTP/1.9"),
    ("version 2.0", "9110 15.6.6", Reject, b"GET /case HTTP/2.0"),
    ("version 3.0", "9110 15.6.6", Reject, b"GET /case HTTP/3.0"),
    ("version 9.9", "9110 15.6.6", Reject, b"GET /case HTTP/9.9"),
    ("version 2", "9112 2.3", Reject, b"GET /case HTTP/2"),
    ("version 1", "9112 2.3", Reject, b"GET /case HTTP/1"),
    ("version 1.", "9112 2.3", Reject, b"GET /case HTTP/1."),
    ("version .1", "9112 2.3", Reject, b"GET /case HTTP/.1"),
    ("version 01.1", "9112 2.3", Reject, b"GET /case HTTP/01.1"),
    ("version 1.01", "9112 2.3", Reject, b"GET /case HTTP/1.01"),
    ("version 1.10", "9112 2.3", Reject, b"GET /case HTTP/1.10"),
    ("version 11.1", "9112 2.3", Reject, b"GET /case HTTP/11.1"),
    ("version 1.1.1", "9112 2.3", Reject, b"GET /case HTTP/1.1.1"),
    ("version 1,1", "9112 2.3", Reject, b"GET /case HTTP/1,1"),
    ("version 1.1a", "9112 2.3", Reject, b"GET /case HTTP/1.1a"),
    ("version -1.1", "9112 2.3", Reject, b"GET /case HTTP/-1.1"),
    ("version +1.1", "9112 2.3", Reject, b"GET /case HTTP/+1.1"),
    ("version x.y", "9112 2.3", Reject, b"GET /case HTTP/x.y"),
    ("version empty", "9112 2.3", Reject, b"GET /case HTTP/"),
    ("version without slash", "9112 2.3", Reject, b"GET /case HTTP1.1"),
    ("version with two slashes", "9112 2.3", Reject, b"GET /case HTTP//1.1"),
    ("version in lower case", "9112 2.3", Reject, b"GET /case http/1.1"),
    ("version in mixed case", "9112 2.3", Reject, b"GET /case Http/1.1"),
    ("version HTTPS", "9112 2.3", Reject, b"GET /case HTTPS/1.1"),
    ("version ICY", "9112 2.3", Reject, b"GET /case ICY/1.1"),
    ("version with a space before the slash", "9112 2.3", Reject, b"GET /case HTTP /1.1"),
    ("version with a space after the slash", "9112 2.3", Reject, b"GET /case HTTP/ 1.1"),
    ("version in full-width digits", "9112 2.3", Reject, b"GET /case HTTP/\xef\xbc\x91.1"),
    ("space after the version", "9112 3", Reject, b"GET /case HTTP/1.1 "),
    ("tab after the version", "9112 3", Reject, b"GET /case HTTP/1.1\t"),
    ("NUL after the version", "9112 3", Reject, b"GET /case HTTP/1.1\0"),
    ("extra text after the version", "9112 3", Reject, b"GET /case HTTP/1.1 x"),
    ("two versions", "9112 3", Reject, b"GET /case HTTP/1.1 HTTP/1.1"),
    ("two spaces after the method", "9112 3", Reject, b"GET  /case HTTP/1.1"),
    ("two spaces before the version", "9112 3", Reject, b"GET /case  HTTP/1.1"),
    ("tab after the method", "9112 3", Reject, b"GET\t/case HTTP/1.1"),
    ("tab before the version", "9112 3", Reject, b"GET /case\tHTTP/1.1"),
    ("VT after the method", "9112 3", Reject, b"GET\x0b/case HTTP/1.1"),
    ("FF before the version", "9112 3", Reject, b"GET /case\x0cHTTP/1.1"),
    ("CR after the method", "9112 3", Reject, b"GET\r/case HTTP/1.1"),
    ("NBSP after the method", "9112 3", Reject, b"GET\xa0/case HTTP/1.1"),
    ("NUL after the method", "9112 3", Reject, b"GET\0/case HTTP/1.1"),
    ("no space after the method", "9112 3", Reject, b"GET/case HTTP/1.1"),
    ("no space before the version", "9112 3", Reject, b"GET /caseHTTP/1.1"),
    ("no target", "9112 3.2", Reject, b"GET HTTP/1.1"),
    ("no target, two spaces", "9112 3.2", Reject, b"GET  HTTP/1.1"),
    ("no method", "9112 3.1", Reject, b" /case HTTP/1.1"),
    ("only a method", "9112 3", Reject, b"GET"),
    ("a space in the target", "9112 3.2", Reject, b"GET /ca se HTTP/1.1"),
    ("a request in the target", "bug reports", Reject, b"GET /case HTTP/1.1 /smuggled HTTP/1.1"),
    ("a status line", "9112 2.1", Reject, b"HTTP/1.1 200 OK"),
    ("method in lower case", "9110 9.1", Either, b"get /case HTTP/1.1"),
    ("method in mixed case", "9110 9.1", Either, b"Get /case HTTP/1.1"),
    ("unknown method", "9110 9.1", Forward, b"FOO /case HTTP/1.1"),
    ("method with a hyphen", "9110 9.1", Forward, b"M-SEARCH /case HTTP/1.1"),
    ("method of token bytes", "9110 9.1", Either, b"!#$%&'*+-.^_`|~ /case HTTP/1.1"),
    ("method of digits", "9110 9.1", Either, b"123 /case HTTP/1.1"),
    ("method with @", "9112 3.1", Reject, b"G@T /case HTTP/1.1"),
    ("method with a comma", "9112 3.1", Reject, b"GET, /case HTTP/1.1"),
    ("method with a colon", "9112 3.1", Reject, b"GET: /case HTTP/1.1"),
    ("method with a slash", "9112 3.1", Reject, b"GET/ /case HTTP/1.1"),
    ("method in brackets", "9112 3.1", Reject, b"(GET) /case HTTP/1.1"),
    ("method in quotes", "9112 3.1", Reject, b"\"GET\" /case HTTP/1.1"),
    ("method with DEL", "9112 3.1", Reject, b"GET\x7f /case HTTP/1.1"),
    ("method with a byte above ASCII", "9112 3.1", Reject, b"G\xcbT /case HTTP/1.1"),
    ("CONNECT", "9110 9.3.6", Reject, b"CONNECT t.test:443 HTTP/1.1"),
    ("CONNECT, another host", "9110 9.3.6", Reject, b"CONNECT other.test:22 HTTP/1.1"),
    ("CONNECT with a path", "9112 3.2.3", Reject, b"CONNECT /case HTTP/1.1"),
    ("CONNECT without port", "9112 3.2.3", Reject, b"CONNECT t.test HTTP/1.1"),
    ("connect in lower case", "9110 9.1", LocalReply, b"connect t.test:443 HTTP/1.1"),
    ("TRACE", "9110 9.3.8", LocalReply, b"TRACE /case HTTP/1.1"),
    ("PRI", "9113 3.4", LocalReply, b"PRI * HTTP/1.1"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = LINES
        .iter()
        .map(|(name, rule, expect, line)| {
            case::new(*expect, *name, rule, [line, &b"\r\nHost: t.test\r\n\r\n"[..]].concat())
        })
        .collect();
    for (name, method) in [("method in lower case", "get"), ("method in mixed case", "Get"), ("unknown method", "FOO")]
    {
        let case = cases.iter_mut().find(|case| case.name == name);
        case.into_iter().for_each(|case| case.checks.push(case::Check::Method(method)));
    }
    cases.extend([
        case::reject("HTTP/0.9 alone", "9112 3", *b"GET /case\r\n"),
        case::reject("TLS client hello", "9112 3", *b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n"),
        case::reject("SSH banner", "9112 3", *b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        case::reject(
            "TRACE with a body",
            "9110 9.3.8",
            *b"TRACE /case HTTP/1.1\r\nHost: t.test\r\nContent-Length: 5\r\n\r\nhello",
        ),
        case::reject(
            "CONNECT with a body",
            "9110 9.3.6",
            *b"CONNECT t.test:443 HTTP/1.1\r\nHost: t.test:443\r\nContent-Length: 5\r\n\r\nhello",
        ),
        case::either(
            "method of 1000 bytes",
            "9112 3",
            [&vec![b'M'; 1000][..], b" /case HTTP/1.1\r\nHost: t.test\r\n\r\n"].concat(),
        ),
        case::reject(
            "method of 100,000 bytes",
            "9112 3",
            [&vec![b'M'; 100_000][..], b" /case HTTP/1.1\r\nHost: t.test\r\n\r\n"].concat(),
        ),
    ]);
    cases.extend(sizes());
    cases
}

/// Sizes that must be accepted, and sizes that must be refused.
fn sizes() -> Vec<Case> {
    let long = |length: usize| case::target(&[b"/case?", &vec![b'q'; length - 6][..]].concat());
    let field = |length: usize| case::get(&[b"X-A: ", &vec![b'v'; length][..], b"\r\n"].concat());
    let fields = |count: usize| {
        let lines: String = (0..count).map(|index| format!("X-{index}: b\r\n")).collect();
        case::get(lines.as_bytes())
    };
    vec![
        case::forward("target of 8000 bytes", "9112 3", long(8000)),
        case::either("target of 20,000 bytes", "9110 15.5.15", long(20_000)).status(&[414]),
        case::reject("target of 100,000 bytes", "9110 15.5.15", long(100_000)).status(&[414]),
        case::reject("target of 1,000,000 bytes", "9110 15.5.15", long(1_000_000)).status(&[414]),
        case::forward("field of 4000 bytes", "9110 5.4", field(4000)),
        case::either("field of 30,000 bytes", "6585 5", field(30_000)).status(&[431]),
        case::reject("field of 100,000 bytes", "6585 5", field(100_000)).status(&[431]),
        case::reject("field of 1,000,000 bytes", "6585 5", field(1_000_000)).status(&[431]),
        case::reject(
            "field name of 100,000 bytes",
            "6585 5",
            case::get(&[&vec![b'n'; 100_000][..], b": b\r\n"].concat()),
        )
        .status(&[431]),
        case::forward("90 fields", "9110 5.4", fields(90)),
        case::reject("2000 fields", "6585 5", fields(2000)).status(&[431]),
        case::reject("8000 fields", "6585 5", fields(8000)).status(&[431]),
    ]
}
