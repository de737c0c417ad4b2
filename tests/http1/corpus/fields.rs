//! Fields that a gateway must act on: `Connection` and the fields that it lists, upgrades,
//! `Expect`, `TE`, `Max-Forwards`, and names that CGI servers confuse with others.

use crate::case::Expect::{Either, Forward, LocalReply};
use crate::case::{self, Case, Check, Expect};

/// Title, deciding section, expected reaction, field lines, a field that must not be forwarded, and
/// a field that must be forwarded with this value.
type Row = (&'static str, &'static str, Expect, &'static [u8], &'static str, (&'static str, &'static str));

const NONE: (&str, &str) = ("", "");

const LINES: &[Row] = &[
    ("field listed in Connection", "9110 7.6.1", Forward, b"Connection: x-a\r\nX-A: b\r\n", "x-a", NONE),
    ("field listed in Connection, other case", "9110 7.6.1", Forward, b"Connection: X-a\r\nx-A: b\r\n", "x-a", NONE),
    ("field before the Connection that lists it", "9110 7.6.1", Forward, b"X-A: b\r\nConnection: x-a\r\n", "x-a", NONE),
    (
        "field in a list of Connection options",
        "9110 7.6.1",
        Forward,
        b"Connection: x-b, x-a ,keep-alive\r\nX-A: b\r\n",
        "x-a",
        NONE,
    ),
    (
        "field listed in a second Connection line",
        "9110 7.6.1",
        Forward,
        b"Connection: keep-alive\r\nX-A: b\r\nConnection: x-a\r\n",
        "x-a",
        NONE,
    ),
    (
        "repeated field listed in Connection",
        "9110 7.6.1",
        Forward,
        b"Connection: x-a\r\nX-A: b\r\nX-A: c\r\n",
        "x-a",
        NONE,
    ),
    (
        "field and close listed in Connection",
        "9110 7.6.1",
        Forward,
        b"Connection: close, x-a\r\nX-A: b\r\n",
        "x-a",
        NONE,
    ),
    (
        "authorization listed in Connection",
        "9110 7.6.1",
        Either,
        b"Connection: authorization\r\nAuthorization: Basic eDp5\r\n",
        "",
        ("authorization", "Basic eDp5"),
    ),
    (
        "cookie listed in Connection",
        "9110 7.6.1",
        Either,
        b"Connection: cookie\r\nCookie: a=b\r\n",
        "",
        ("cookie", "a=b"),
    ),
    (
        "x-forwarded-for listed in Connection",
        "bug reports",
        Either,
        b"Connection: x-forwarded-for\r\nX-Forwarded-For: 10.0.0.1\r\n",
        "",
        ("x-forwarded-for", "127.0.0.1"),
    ),
    (
        "x-forwarded-proto listed in Connection",
        "bug reports",
        Either,
        b"Connection: x-forwarded-proto\r\n",
        "",
        ("x-forwarded-proto", "http"),
    ),
    ("host listed in Connection", "bug reports", Either, b"Connection: host\r\n", "", ("host", "t.test")),
    (
        "host and close listed in Connection",
        "bug reports",
        Either,
        b"Connection: close, host\r\n",
        "",
        ("host", "t.test"),
    ),
    ("expect listed in Connection", "9110 7.6.1", Either, b"Connection: expect\r\nExpect: 100-continue\r\n", "", NONE),
    ("te listed in Connection", "9110 10.1.4", Forward, b"Connection: te\r\nTE: trailers\r\n", "", NONE),
    ("connection listed in Connection", "9110 7.6.1", Either, b"Connection: connection\r\n", "", NONE),
    ("Connection empty", "9110 7.6.1", Forward, b"Connection:\r\n", "", NONE),
    ("Connection of only commas", "9110 5.6.1.2", Forward, b"Connection: , ,,\r\n", "", NONE),
    ("Connection with an invalid token", "9110 7.6.1", Either, b"Connection: a b, \"c\"\r\n", "", NONE),
    ("Connection keep-alive", "9112 9.3", Forward, b"Connection: keep-alive\r\n", "keep-alive", NONE),
    ("Keep-Alive", "9112 C.2.2", Forward, b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", "keep-alive", NONE),
    ("Keep-Alive, not listed in Connection", "9110 7.6.1", Forward, b"Keep-Alive: timeout=5\r\n", "keep-alive", NONE),
    ("Proxy-Connection", "9112 C.2.2", Forward, b"Proxy-Connection: keep-alive\r\n", "proxy-connection", NONE),
    (
        "Proxy-Connection that lists a field",
        "9112 C.2.2",
        Forward,
        b"Proxy-Connection: x-a\r\n",
        "proxy-connection",
        NONE,
    ),
    ("TE trailers", "9110 10.1.4", Forward, b"Connection: TE\r\nTE: trailers\r\n", "", NONE),
    ("TE gzip", "9110 10.1.4", Forward, b"Connection: TE\r\nTE: gzip\r\n", "te", NONE),
    ("TE trailers, gzip", "9110 10.1.4", Forward, b"Connection: TE\r\nTE: trailers, gzip;q=0.5\r\n", "", NONE),
    ("TE chunked", "9110 10.1.4", Either, b"Connection: TE\r\nTE: chunked\r\n", "te", NONE),
    ("TE, not listed in Connection", "9110 10.1.4", Forward, b"TE: gzip\r\n", "te", NONE),
    ("Trailer", "9110 6.6.2", Forward, b"Trailer: x-a\r\n", "", NONE),
    (
        "Upgrade h2c",
        "9113 3.1",
        Forward,
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "http2-settings",
        NONE,
    ),
    (
        "Upgrade h2c, only Upgrade listed in Connection",
        "9113 3.1",
        Forward,
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "http2-settings",
        NONE,
    ),
    ("Upgrade h2c, not listed in Connection", "9110 7.8", Forward, b"Upgrade: h2c\r\n", "upgrade", NONE),
    ("Upgrade H2C", "9113 3.1", Forward, b"Connection: Upgrade\r\nUpgrade: H2C\r\n", "", NONE),
    ("Upgrade websocket, h2c", "9113 3.1", Either, b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", "", NONE),
    ("Upgrade h2", "9113 3.1", Either, b"Connection: Upgrade\r\nUpgrade: h2\r\n", "", NONE),
    ("Upgrade TLS", "2817 3", Either, b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", "", NONE),
    ("Upgrade websocket, not listed in Connection", "9110 7.8", Forward, b"Upgrade: websocket\r\n", "upgrade", NONE),
    ("Connection upgrade without Upgrade", "9110 7.8", Forward, b"Connection: upgrade\r\n", "upgrade", NONE),
    ("HTTP2-Settings alone", "9113 3.1", Forward, b"HTTP2-Settings: AAMAAABk\r\n", "http2-settings", NONE),
    ("Expect unknown", "9110 10.1.1", LocalReply, b"Expect: 200-ok\r\n", "", NONE),
    ("Expect two", "9110 10.1.1", LocalReply, b"Expect: 100-continue, 200-ok\r\n", "", NONE),
    ("Expect with a parameter", "9110 10.1.1", LocalReply, b"Expect: 100-continue;a=b\r\n", "", NONE),
    ("Expect on a GET without body", "9110 10.1.1", Forward, b"Expect: 100-continue\r\n", "", NONE),
    ("Expect empty", "9110 10.1.1", Either, b"Expect:\r\n", "", NONE),
    ("Max-Forwards with GET", "9110 7.6.2", Forward, b"Max-Forwards: 0\r\n", "", NONE),
    ("Max-Forwards invalid", "9110 7.6.2", Either, b"Max-Forwards: abc\r\n", "", NONE),
    ("X_Forwarded_For", "bug reports", Either, b"X_Forwarded_For: 10.0.0.1\r\n", "x_forwarded_for", NONE),
    ("X_Forwarded_Proto", "bug reports", Either, b"X_Forwarded_Proto: https\r\n", "x_forwarded_proto", NONE),
    ("X_Forwarded-Host", "bug reports", Either, b"X_Forwarded-Host: other.test\r\n", "x_forwarded-host", NONE),
    (
        "X-Forwarded-For from the client",
        "bug reports",
        Forward,
        b"X-Forwarded-For: 10.0.0.1\r\n",
        "",
        ("x-forwarded-for", "127.0.0.1"),
    ),
    (
        "X-Forwarded-For twice",
        "bug reports",
        Forward,
        b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n",
        "",
        ("x-forwarded-for", "127.0.0.1"),
    ),
    (
        "X-Forwarded-Proto from the client",
        "bug reports",
        Forward,
        b"X-Forwarded-Proto: https\r\n",
        "",
        ("x-forwarded-proto", "http"),
    ),
    (
        "X-Forwarded-Host from the client",
        "bug reports",
        Forward,
        b"X-Forwarded-Host: other.test\r\n",
        "",
        ("x-forwarded-host", "t.test"),
    ),
    ("X-HTTP-Method-Override", "9110 9.1", Forward, b"X-HTTP-Method-Override: DELETE\r\n", "", NONE),
    ("Content-Encoding chunked", "9110 8.4", Forward, b"Content-Encoding: chunked\r\n", "", NONE),
    ("Proxy", "bug reports (httpoxy)", Either, b"Proxy: http://other.test\r\n", "", NONE),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = LINES
        .iter()
        .map(|(name, rule, expect, lines, absent, (field, value))| {
            let mut case = case::new(*expect, *name, rule, case::get(lines)).target("/case");
            if lines.starts_with(b"Expect") && *expect == LocalReply {
                case = case.status(&[417]);
            }
            if !absent.is_empty() {
                case = case.absent(absent);
            }
            if field.is_empty() { case } else { case.field(field, value) }
        })
        .collect();
    cases.extend(max_forwards());
    cases.extend(requests());
    cases
}

/// `Max-Forwards` with the methods that it applies to.
fn max_forwards() -> Vec<Case> {
    let request = |line: &str, lines: &str| format!("{line}\r\nHost: t.test\r\n{lines}\r\n");
    vec![
        case::local_reply(
            "Max-Forwards 0 with OPTIONS",
            "9110 7.6.2",
            request("OPTIONS /case HTTP/1.1", "Max-Forwards: 0\r\n"),
        )
        .status(&[200, 204]),
        case::local_reply(
            "Max-Forwards 0 with OPTIONS *",
            "9110 7.6.2",
            request("OPTIONS * HTTP/1.1", "Max-Forwards: 0\r\n"),
        )
        .status(&[200, 204]),
        case::forward(
            "Max-Forwards 5 with OPTIONS",
            "9110 7.6.2",
            request("OPTIONS /case HTTP/1.1", "Max-Forwards: 5\r\n"),
        )
        .field("max-forwards", "4"),
        case::either(
            "Max-Forwards overflow with OPTIONS",
            "9110 7.6.2",
            request("OPTIONS /case HTTP/1.1", "Max-Forwards: 99999999999999999999\r\n"),
        ),
        case::either(
            "Max-Forwards negative with OPTIONS",
            "9110 7.6.2",
            request("OPTIONS /case HTTP/1.1", "Max-Forwards: -1\r\n"),
        ),
        case::local_reply(
            "Max-Forwards 0 with TRACE",
            "9110 7.6.2",
            request("TRACE /case HTTP/1.1", "Max-Forwards: 0\r\n"),
        ),
    ]
}

/// Other fields with a body, in HTTP/1.0, or in large numbers.
fn requests() -> Vec<Case> {
    let options: String = (0..200).map(|index| format!("x-{index}, ")).collect();
    vec![
        case::either(
            "Connection with 200 options",
            "9110 7.6.1",
            case::get(format!("Connection: {options}x-a\r\nX-A: b\r\n").as_bytes()),
        )
        .absent("x-a"),
        case::forward(
            "Expect with a body",
            "9110 10.1.1",
            case::post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"hello"),
        )
        .body(*b"hello"),
        case::forward(
            "Expect in other case",
            "9110 10.1.1",
            case::post(b"Expect: 100-CONTINUE\r\nContent-Length: 5\r\n", b"hello"),
        )
        .body(*b"hello"),
        case::forward(
            "Expect in HTTP/1.0",
            "9110 10.1.1",
            *b"POST /case HTTP/1.0\r\nHost: t.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        )
        .body(*b"hello"),
        case::forward(
            "Upgrade h2c with a body",
            "9113 3.1",
            case::post(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n", b"hello"),
        )
        .body(*b"hello")
        .absent("upgrade"),
        case::forward(
            "keep-alive in HTTP/1.0",
            "9112 9.3",
            *b"GET /case HTTP/1.0\r\nHost: t.test\r\nConnection: keep-alive\r\n\r\n",
        )
        .target("/case"),
        case::forward("close, then another request", "9112 9.6", case::get(b"Connection: close\r\n"))
            .target("/case")
            .check(Check::Method("GET")),
    ]
}
