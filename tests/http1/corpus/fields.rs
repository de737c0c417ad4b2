//! Fields with duties for a gateway: `Connection` and what it nominates, upgrades, `Expect`, `TE`, `Max-Forwards`, names that become others behind CGI.

use crate::case::Want::{Either, Forward, Refuse};
use crate::case::{self, Case, Check, Want};

/// A field line, a field that must not be in what is forwarded, and one that must with its value.
type Row = (&'static str, &'static str, Want, &'static [u8], &'static str, (&'static str, &'static str));

const NONE: (&str, &str) = ("", "");

const LINES: &[Row] = &[
    ("nominated field", "9110 7.6.1", Forward, b"Connection: x-a\r\nX-A: b\r\n", "x-a", NONE),
    ("nominated field, other case", "9110 7.6.1", Forward, b"Connection: X-a\r\nx-A: b\r\n", "x-a", NONE),
    ("nominated field before Connection", "9110 7.6.1", Forward, b"X-A: b\r\nConnection: x-a\r\n", "x-a", NONE),
    (
        "nominated field in a list",
        "9110 7.6.1",
        Forward,
        b"Connection: x-b, x-a ,keep-alive\r\nX-A: b\r\n",
        "x-a",
        NONE,
    ),
    (
        "nominated field, second Connection",
        "9110 7.6.1",
        Forward,
        b"Connection: keep-alive\r\nX-A: b\r\nConnection: x-a\r\n",
        "x-a",
        NONE,
    ),
    ("nominated field twice", "9110 7.6.1", Forward, b"Connection: x-a\r\nX-A: b\r\nX-A: c\r\n", "x-a", NONE),
    ("nominated and close", "9110 7.6.1", Forward, b"Connection: close, x-a\r\nX-A: b\r\n", "x-a", NONE),
    (
        "nominated authorization",
        "9110 7.6.1",
        Either,
        b"Connection: authorization\r\nAuthorization: Basic eDp5\r\n",
        "",
        ("authorization", "Basic eDp5"),
    ),
    ("nominated cookie", "9110 7.6.1", Either, b"Connection: cookie\r\nCookie: a=b\r\n", "", ("cookie", "a=b")),
    (
        "nominated x-forwarded-for",
        "bug reports",
        Either,
        b"Connection: x-forwarded-for\r\nX-Forwarded-For: 10.0.0.1\r\n",
        "",
        ("x-forwarded-for", "127.0.0.1"),
    ),
    (
        "nominated x-forwarded-proto",
        "bug reports",
        Either,
        b"Connection: x-forwarded-proto\r\n",
        "",
        ("x-forwarded-proto", "http"),
    ),
    ("nominated host", "bug reports", Either, b"Connection: host\r\n", "", ("host", "t.test")),
    ("nominated host and close", "bug reports", Either, b"Connection: close, host\r\n", "", ("host", "t.test")),
    ("nominated expect", "9110 7.6.1", Either, b"Connection: expect\r\nExpect: 100-continue\r\n", "", NONE),
    ("nominated te", "9110 10.1.4", Forward, b"Connection: te\r\nTE: trailers\r\n", "", NONE),
    ("nominated connection", "9110 7.6.1", Either, b"Connection: connection\r\n", "", NONE),
    ("Connection empty", "9110 7.6.1", Forward, b"Connection:\r\n", "", NONE),
    ("Connection of commas", "9110 5.6.1.2", Forward, b"Connection: , ,,\r\n", "", NONE),
    ("Connection with a bad token", "9110 7.6.1", Either, b"Connection: a b, \"c\"\r\n", "", NONE),
    ("Connection keep-alive", "9112 9.3", Forward, b"Connection: keep-alive\r\n", "keep-alive", NONE),
    ("Keep-Alive", "9112 C.2.2", Forward, b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", "keep-alive", NONE),
    ("Keep-Alive, not nominated", "9110 7.6.1", Forward, b"Keep-Alive: timeout=5\r\n", "keep-alive", NONE),
    ("Proxy-Connection", "9112 C.2.2", Forward, b"Proxy-Connection: keep-alive\r\n", "proxy-connection", NONE),
    ("Proxy-Connection that nominates", "9112 C.2.2", Forward, b"Proxy-Connection: x-a\r\n", "proxy-connection", NONE),
    ("TE trailers", "9110 10.1.4", Forward, b"Connection: TE\r\nTE: trailers\r\n", "", NONE),
    ("TE gzip", "9110 10.1.4", Forward, b"Connection: TE\r\nTE: gzip\r\n", "te", NONE),
    ("TE trailers, gzip", "9110 10.1.4", Forward, b"Connection: TE\r\nTE: trailers, gzip;q=0.5\r\n", "", NONE),
    ("TE chunked", "9110 10.1.4", Either, b"Connection: TE\r\nTE: chunked\r\n", "te", NONE),
    ("TE, not nominated", "9110 10.1.4", Forward, b"TE: gzip\r\n", "te", NONE),
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
        "Upgrade h2c, only Upgrade nominated",
        "9113 3.1",
        Forward,
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "http2-settings",
        NONE,
    ),
    ("Upgrade h2c, not nominated", "9110 7.8", Forward, b"Upgrade: h2c\r\n", "upgrade", NONE),
    ("Upgrade H2C", "9113 3.1", Forward, b"Connection: Upgrade\r\nUpgrade: H2C\r\n", "", NONE),
    ("Upgrade websocket, h2c", "9113 3.1", Either, b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", "", NONE),
    ("Upgrade h2", "9113 3.1", Either, b"Connection: Upgrade\r\nUpgrade: h2\r\n", "", NONE),
    ("Upgrade TLS", "2817 3", Either, b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", "", NONE),
    ("Upgrade websocket, not nominated", "9110 7.8", Forward, b"Upgrade: websocket\r\n", "upgrade", NONE),
    ("Connection upgrade without Upgrade", "9110 7.8", Forward, b"Connection: upgrade\r\n", "upgrade", NONE),
    ("HTTP2-Settings alone", "9113 3.1", Forward, b"HTTP2-Settings: AAMAAABk\r\n", "http2-settings", NONE),
    ("Expect unknown", "9110 10.1.1", Refuse, b"Expect: 200-ok\r\n", "", NONE),
    ("Expect two", "9110 10.1.1", Refuse, b"Expect: 100-continue, 200-ok\r\n", "", NONE),
    ("Expect with a parameter", "9110 10.1.1", Refuse, b"Expect: 100-continue;a=b\r\n", "", NONE),
    ("Expect on a GET without body", "9110 10.1.1", Forward, b"Expect: 100-continue\r\n", "", NONE),
    ("Expect empty", "9110 10.1.1", Either, b"Expect:\r\n", "", NONE),
    ("Max-Forwards with GET", "9110 7.6.2", Forward, b"Max-Forwards: 0\r\n", "", NONE),
    ("Max-Forwards bad", "9110 7.6.2", Either, b"Max-Forwards: abc\r\n", "", NONE),
    ("X_Forwarded_For", "bug reports", Either, b"X_Forwarded_For: 10.0.0.1\r\n", "x_forwarded_for", NONE),
    ("X_Forwarded_Proto", "bug reports", Either, b"X_Forwarded_Proto: https\r\n", "x_forwarded_proto", NONE),
    ("X_Forwarded-Host", "bug reports", Either, b"X_Forwarded-Host: other.test\r\n", "x_forwarded-host", NONE),
    (
        "X-Forwarded-For of the client",
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
        "X-Forwarded-Proto of the client",
        "bug reports",
        Forward,
        b"X-Forwarded-Proto: https\r\n",
        "",
        ("x-forwarded-proto", "http"),
    ),
    (
        "X-Forwarded-Host of the client",
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
        .map(|(name, why, want, lines, absent, (field, value))| {
            let mut case = case::of(*want, *name, why, case::get(lines)).target("/case");
            if lines.starts_with(b"Expect") && *want == Refuse {
                case = case.status(&[417]);
            }
            if !absent.is_empty() {
                case = case.absent(absent);
            }
            if field.is_empty() { case } else { case.field(field, value) }
        })
        .collect();
    let whole = |line: &str, lines: &str| format!("{line}\r\nHost: t.test\r\n{lines}\r\n");
    let long: String = (0..200).map(|index| format!("x-{index}, ")).collect();
    cases.extend([
        case::refuse(
            "Max-Forwards 0 with OPTIONS",
            "9110 7.6.2",
            whole("OPTIONS /case HTTP/1.1", "Max-Forwards: 0\r\n"),
        )
        .status(&[200, 204]),
        case::refuse("Max-Forwards 0 with OPTIONS *", "9110 7.6.2", whole("OPTIONS * HTTP/1.1", "Max-Forwards: 0\r\n"))
            .status(&[200, 204]),
        case::forward(
            "Max-Forwards 5 with OPTIONS",
            "9110 7.6.2",
            whole("OPTIONS /case HTTP/1.1", "Max-Forwards: 5\r\n"),
        )
        .field("max-forwards", "4"),
        case::either(
            "Max-Forwards overflow with OPTIONS",
            "9110 7.6.2",
            whole("OPTIONS /case HTTP/1.1", "Max-Forwards: 99999999999999999999\r\n"),
        ),
        case::either(
            "Max-Forwards negative with OPTIONS",
            "9110 7.6.2",
            whole("OPTIONS /case HTTP/1.1", "Max-Forwards: -1\r\n"),
        ),
        case::refuse("Max-Forwards 0 with TRACE", "9110 7.6.2", whole("TRACE /case HTTP/1.1", "Max-Forwards: 0\r\n")),
        case::either(
            "Connection of 200 names",
            "9110 7.6.1",
            case::get(format!("Connection: {long}x-a\r\nX-A: b\r\n").as_bytes()),
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
        case::forward("close, and a request behind", "9112 9.6", case::get(b"Connection: close\r\n")).target("/case"),
    ]);
    let close = cases.iter_mut().find(|case| case.name == "close, and a request behind");
    close.into_iter().for_each(|case| case.checks.push(Check::Method("GET")));
    cases
}
