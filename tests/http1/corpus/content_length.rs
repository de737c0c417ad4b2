//! `Content-Length` (RFC 9110, section 8.6; RFC 9112, section 6.3): one decimal number, which is
//! forwarded in canonical form. Everything else is refused.

use crate::case::Expect::{Either, Forward, Reject};
use crate::case::{self, Case, Check, Expect};

/// Not a token. A parser that sees no body here finds bytes that cannot begin a request.
const BODY: &[u8] = b"h(ll)";

/// Title, deciding section, expected reaction, field lines.
type Row = (&'static str, &'static str, Expect, &'static [u8]);

const LINES: &[Row] = &[
    ("Content-Length", "9110 8.6", Forward, b"Content-Length: 5\r\n"),
    ("Content-Length, lower-case name", "9110 5.1", Forward, b"content-length: 5\r\n"),
    ("Content-Length, no space", "9112 5", Forward, b"Content-Length:5\r\n"),
    ("Content-Length, spaces and tab around", "9112 5", Forward, b"Content-Length: \t5 \t\r\n"),
    ("Content-Length twice, same value", "9110 8.6", Either, b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    (
        "Content-Length three times, same value",
        "9110 8.6",
        Either,
        b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
    ),
    ("Content-Length list, same value", "9110 8.6", Either, b"Content-Length: 5, 5\r\n"),
    ("Content-Length list, same value, no space", "9110 8.6", Either, b"Content-Length: 5,5\r\n"),
    ("Content-Length, leading zero", "9110 8.6", Either, b"Content-Length: 05\r\n"),
    ("Content-Length, many leading zeros", "9110 8.6", Either, b"Content-Length: 0000000000000000000000000000005\r\n"),
    ("Content-Length twice, 5 and 05", "9110 8.6", Either, b"Content-Length: 5\r\nContent-Length: 05\r\n"),
    ("Content-Length twice, different values", "9110 8.6", Reject, b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    ("Content-Length twice, 0 last", "9110 8.6", Reject, b"Content-Length: 5\r\nContent-Length: 0\r\n"),
    ("Content-Length twice, 0 first", "9110 8.6", Reject, b"Content-Length: 0\r\nContent-Length: 5\r\n"),
    ("Content-Length twice, other case", "9110 8.6", Reject, b"Content-Length: 5\r\ncontent-length: 0\r\n"),
    ("Content-Length twice, one invalid", "9110 8.6", Reject, b"Content-Length: 5\r\nContent-Length: x\r\n"),
    ("Content-Length twice, one empty", "9110 8.6", Reject, b"Content-Length: 5\r\nContent-Length:\r\n"),
    ("Content-Length list, different values", "9110 8.6", Reject, b"Content-Length: 5, 6\r\n"),
    ("Content-Length list, empty last", "9110 8.6", Reject, b"Content-Length: 5,\r\n"),
    ("Content-Length list, empty first", "9110 8.6", Reject, b"Content-Length: ,5\r\n"),
    (
        "Content-Length list and a line, different values",
        "9110 8.6",
        Reject,
        b"Content-Length: 5, 5\r\nContent-Length: 6\r\n",
    ),
    ("Content-Length +5", "9110 8.6", Reject, b"Content-Length: +5\r\n"),
    ("Content-Length -5", "9110 8.6", Reject, b"Content-Length: -5\r\n"),
    ("Content-Length -0", "9110 8.6", Reject, b"Content-Length: -0\r\n"),
    ("Content-Length +0", "9110 8.6", Reject, b"Content-Length: +0\r\n"),
    ("Content-Length 0x5", "9110 8.6", Reject, b"Content-Length: 0x5\r\n"),
    ("Content-Length 5 5", "9110 8.6", Reject, b"Content-Length: 5 5\r\n"),
    ("Content-Length 0 5", "9110 8.6", Reject, b"Content-Length: 0 5\r\n"),
    ("Content-Length 5.0", "9110 8.6", Reject, b"Content-Length: 5.0\r\n"),
    ("Content-Length 5e0", "9110 8.6", Reject, b"Content-Length: 5e0\r\n"),
    ("Content-Length 5_0", "9110 8.6", Reject, b"Content-Length: 5_0\r\n"),
    ("Content-Length 0_5 (accepted by Python's int())", "bug reports", Reject, b"Content-Length: 0_5\r\n"),
    ("Content-Length 5;a", "9110 8.6", Reject, b"Content-Length: 5;a=b\r\n"),
    ("Content-Length quoted", "9110 8.6", Reject, b"Content-Length: \"5\"\r\n"),
    ("Content-Length spelled out", "9110 8.6", Reject, b"Content-Length: five\r\n"),
    ("Content-Length empty", "9110 8.6", Reject, b"Content-Length:\r\n"),
    ("Content-Length only spaces", "9110 8.6", Reject, b"Content-Length:   \r\n"),
    ("Content-Length in Arabic digits", "9110 8.6", Reject, b"Content-Length: \xd9\xa5\r\n"),
    ("Content-Length in full-width digits", "9110 8.6", Reject, b"Content-Length: \xef\xbc\x95\r\n"),
    ("Content-Length NUL after", "9110 5.5", Reject, b"Content-Length: 5\0\r\n"),
    ("Content-Length VT after", "9110 5.5", Reject, b"Content-Length: 5\x0b\r\n"),
    ("Content-Length NEL after", "9110 8.6", Reject, b"Content-Length: 5\x85\r\n"),
    ("Content-Length NBSP before", "9110 8.6", Reject, b"Content-Length: \xa05\r\n"),
    ("Content-Length 2^64+5", "9110 8.6", Reject, b"Content-Length: 18446744073709551621\r\n"),
    ("Content-Length of 30 digits", "9110 8.6", Reject, b"Content-Length: 999999999999999999999999999999\r\n"),
    ("Content-Length of 1000 digits", "9110 8.6", Reject, &THOUSAND_DIGITS),
    ("Content-Length space before colon", "9112 5.1", Reject, b"Content-Length : 5\r\n"),
    ("Content-Length tab before colon", "9112 5.1", Reject, b"Content-Length\t: 5\r\n"),
    ("Content-Length space in name", "9112 5.1", Reject, b"Content Length: 5\r\n"),
    ("Content-Length space before name", "9112 5.2", Reject, b" Content-Length: 5\r\n"),
    ("Content-Length obs-fold after colon", "9112 5.2", Reject, b"Content-Length:\r\n 5\r\n"),
    ("Content-Length obs-fold after", "9112 5.2", Reject, b"Content-Length: 5\r\n 0\r\n"),
    ("Content-Length in an obs-fold", "9112 5.2", Reject, b"X-A: b\r\n Content-Length: 5\r\n"),
    ("Content-Length bare LF before", "9112 2.2", Reject, b"X-A: b\nContent-Length: 5\r\n"),
    ("Content-Length bare CR before", "9112 2.2", Reject, b"X-A: b\rContent-Length: 5\r\n"),
    ("Content-Length CR CR LF", "9112 2.2", Reject, b"Content-Length: 5\r\r\n"),
    ("Content-Length underscore", "bug reports", Either, b"Content_Length: 5\r\n"),
    (
        "Content-Length underscore beside the real one",
        "bug reports",
        Either,
        b"Content-Length: 5\r\nContent_Length: 0\r\n",
    ),
    ("Content-Length dot", "bug reports", Either, b"Content.Length: 5\r\n"),
    ("Content-Length no hyphen", "bug reports", Either, b"ContentLength: 5\r\n"),
    (
        "Content-Length listed in Connection",
        "9110 7.6.1",
        Either,
        b"Connection: content-length\r\nContent-Length: 5\r\n",
    ),
    (
        "Content-Length listed in Connection, other case",
        "9110 7.6.1",
        Either,
        b"Connection: close, CONTENT-LENGTH\r\nContent-Length: 5\r\n",
    ),
];

const THOUSAND_DIGITS: [u8; 1018] = {
    let mut line = [b'1'; 1018];
    let name = b"Content-Length: ";
    let mut at = 0;
    while at < name.len() {
        line[at] = name[at];
        at += 1;
    }
    line[1016] = b'\r';
    line[1017] = b'\n';
    line
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = LINES
        .iter()
        .map(|(name, rule, expect, lines)| {
            let case = case::new(*expect, *name, rule, case::post(lines, BODY));
            if *expect == Forward { case.body(BODY) } else { case }
        })
        .collect();
    cases.extend(bodies());
    cases.extend(sweep());
    cases
}

/// Valid lengths with bodies that are longer, shorter, or look like requests.
fn bodies() -> Vec<Case> {
    let next = b"GET /second HTTP/1.1\r\nHost: t.test\r\n\r\n";
    let hidden = b"\r\nGET /smuggled HTTP/1.1\r\nHost: t.test\r\n\r\n";
    let length = |length: usize| format!("Content-Length: {length}\r\n").into_bytes();
    let body = |name: &str, lines: &[u8], body: &[u8]| {
        let bytes = [b"POST /body HTTP/1.1\r\nHost: t.test\r\n", lines, b"\r\n", body].concat();
        case::abort_body(name, "9112 6.3", bytes)
    };
    let mut cases = vec![
        case::forward("a request in the body", "9112 6.3", case::post(&length(hidden.len()), hidden)).body(*hidden),
        case::forward("a request after the body", "9112 9.3.2", case::post(&length(5), &[BODY, next].concat()))
            .body(BODY)
            .check(Check::Next("/second")),
        case::forward("a request after no body", "9112 6.3", case::post(b"", next))
            .body(*b"")
            .check(Check::Next("/second")),
        case::forward("a request after Content-Length 0", "9112 6.3", case::post(&length(0), next))
            .body(*b"")
            .check(Check::Next("/second")),
        case::forward("a line end after the body", "9112 2.2", case::post(&length(5), b"h(ll)\r\n")).body(BODY),
        case::forward("a request after a GET", "9112 9.3.2", [&case::get(b"")[..], next].concat())
            .check(Check::Next("/second")),
        case::forward("garbage after the body", "9112 3", case::post(&length(5), b"h(ll), world\r\n\r\n")).body(BODY),
        body("body one byte short", &length(6), BODY).without_canary(),
        body("body missing", &length(6), b"").without_canary(),
        body("incomplete body, Content-Length 2^32+5", b"Content-Length: 4294967301\r\n", BODY),
        body("incomplete body, Content-Length 2^31+5", b"Content-Length: 2147483653\r\n", BODY),
        body("incomplete body, Content-Length 2^63", b"Content-Length: 9223372036854775808\r\n", BODY),
        body("incomplete body, Content-Length 2^64-1", b"Content-Length: 18446744073709551615\r\n", BODY),
        body("incomplete body, Content-Length in 16 digits", b"Content-Length: 1000000000000005\r\n", BODY),
    ];
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "FOO"] {
        let bytes = format!("{method} /case HTTP/1.1\r\nHost: t.test\r\nContent-Length: 5\r\n\r\nh(ll)");
        cases.push(case::either(format!("Content-Length with {method}"), "9110 9.3", bytes).body(BODY));
        let bytes = format!("{method} /case HTTP/1.1\r\nHost: t.test\r\nContent-Length: 0\r\n\r\n");
        cases.push(case::forward(format!("Content-Length 0 with {method}"), "9110 9.3", bytes).body(*b""));
    }
    cases.push(
        case::forward(
            "Content-Length in HTTP/1.0",
            "9112 6.3",
            *b"POST /case HTTP/1.0\r\nHost: t.test\r\nContent-Length: 5\r\n\r\nh(ll)",
        )
        .body(BODY),
    );
    cases
}

/// Inserts every byte before and after the number, and before the colon.
fn sweep() -> Vec<Case> {
    let mut cases = vec![];
    let places: [(&str, &[u8], &[u8]); 3] = [
        ("before the number", b"Content-Length:", b"5\r\n"),
        ("after the number", b"Content-Length: 5", b"\r\n"),
        ("before the colon", b"Content-Length", b": 5\r\n"),
    ];
    for (place, before, after) in places {
        for byte in 0..=255_u8 {
            let lines = [before, &[byte][..], after].concat();
            let name = format!("sweep: Content-Length, a byte {place} 0x{byte:02x}");
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let expect = match (place, byte) {
                // More digits make another number, and then the body is incomplete.
                ("before the number" | "after the number", b'1'..=b'9') => continue,
                ("before the number", b'0') => Either,
                ("after the number", b'0') => continue,
                ("before the number" | "after the number", b' ' | b'\t') => Forward,
                ("before the colon", _) if token => Either,
                _ => Reject,
            };
            cases.push(case::new(expect, name, "9110 8.6", case::post(&lines, BODY)).in_sweep());
        }
    }
    cases
}
