//! `Content-Length`: 1*DIGIT once, in canonical form when it goes on; everything else is refused (RFC 9110, section 8.6; RFC 9112, section 6.3).

use crate::case::Want::{Either, Forward, Reject};
use crate::case::{self, Case, Check, Want};

/// No token: who sees no body finds what cannot begin a request.
const BODY: &[u8] = b"h(ll)";

type Row = (&'static str, &'static str, Want, &'static [u8]);

const LINES: &[Row] = &[
    ("length", "9110 8.6", Forward, b"Content-Length: 5\r\n"),
    ("length, lower-case name", "9110 5.1", Forward, b"content-length: 5\r\n"),
    ("length, no space", "9112 5", Forward, b"Content-Length:5\r\n"),
    ("length, spaces and tab around", "9112 5", Forward, b"Content-Length: \t5 \t\r\n"),
    ("length twice, same", "9110 8.6", Either, b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    ("length thrice, same", "9110 8.6", Either, b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 5\r\n"),
    ("length list, same", "9110 8.6", Either, b"Content-Length: 5, 5\r\n"),
    ("length list, same, no space", "9110 8.6", Either, b"Content-Length: 5,5\r\n"),
    ("length, leading zero", "9110 8.6", Either, b"Content-Length: 05\r\n"),
    ("length, many leading zeros", "9110 8.6", Either, b"Content-Length: 0000000000000000000000000000005\r\n"),
    ("length twice, 5 and 05", "9110 8.6", Either, b"Content-Length: 5\r\nContent-Length: 05\r\n"),
    ("length twice, differing", "9110 8.6", Reject, b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    ("length twice, 0 last", "9110 8.6", Reject, b"Content-Length: 5\r\nContent-Length: 0\r\n"),
    ("length twice, 0 first", "9110 8.6", Reject, b"Content-Length: 0\r\nContent-Length: 5\r\n"),
    ("length twice, other case", "9110 8.6", Reject, b"Content-Length: 5\r\ncontent-length: 0\r\n"),
    ("length twice, one bad", "9110 8.6", Reject, b"Content-Length: 5\r\nContent-Length: x\r\n"),
    ("length twice, one empty", "9110 8.6", Reject, b"Content-Length: 5\r\nContent-Length:\r\n"),
    ("length list, differing", "9110 8.6", Reject, b"Content-Length: 5, 6\r\n"),
    ("length list, empty last", "9110 8.6", Reject, b"Content-Length: 5,\r\n"),
    ("length list, empty first", "9110 8.6", Reject, b"Content-Length: ,5\r\n"),
    ("length list and a line, differing", "9110 8.6", Reject, b"Content-Length: 5, 5\r\nContent-Length: 6\r\n"),
    ("length +5", "9110 8.6", Reject, b"Content-Length: +5\r\n"),
    ("length -5", "9110 8.6", Reject, b"Content-Length: -5\r\n"),
    ("length -0", "9110 8.6", Reject, b"Content-Length: -0\r\n"),
    ("length +0", "9110 8.6", Reject, b"Content-Length: +0\r\n"),
    ("length 0x5", "9110 8.6", Reject, b"Content-Length: 0x5\r\n"),
    ("length 5 5", "9110 8.6", Reject, b"Content-Length: 5 5\r\n"),
    ("length 0 5", "9110 8.6", Reject, b"Content-Length: 0 5\r\n"),
    ("length 5.0", "9110 8.6", Reject, b"Content-Length: 5.0\r\n"),
    ("length 5e0", "9110 8.6", Reject, b"Content-Length: 5e0\r\n"),
    ("length 5_0", "9110 8.6", Reject, b"Content-Length: 5_0\r\n"),
    ("length 1_0 (underscore of Python's int)", "bug reports", Reject, b"Content-Length: 0_5\r\n"),
    ("length 5;a", "9110 8.6", Reject, b"Content-Length: 5;a=b\r\n"),
    ("length quoted", "9110 8.6", Reject, b"Content-Length: \"5\"\r\n"),
    ("length five", "9110 8.6", Reject, b"Content-Length: five\r\n"),
    ("length empty", "9110 8.6", Reject, b"Content-Length:\r\n"),
    ("length only spaces", "9110 8.6", Reject, b"Content-Length:   \r\n"),
    ("length in Arabic digits", "9110 8.6", Reject, b"Content-Length: \xd9\xa5\r\n"),
    ("length in full-width digits", "9110 8.6", Reject, b"Content-Length: \xef\xbc\x95\r\n"),
    ("length NUL behind", "9110 5.5", Reject, b"Content-Length: 5\0\r\n"),
    ("length VT behind", "9110 5.5", Reject, b"Content-Length: 5\x0b\r\n"),
    ("length NEL behind", "9110 8.6", Reject, b"Content-Length: 5\x85\r\n"),
    ("length NBSP before", "9110 8.6", Reject, b"Content-Length: \xa05\r\n"),
    ("length 2^64+5", "9110 8.6", Reject, b"Content-Length: 18446744073709551621\r\n"),
    ("length of 30 digits", "9110 8.6", Reject, b"Content-Length: 999999999999999999999999999999\r\n"),
    ("length of 1000 digits", "9110 8.6", Reject, &THOUSAND_DIGITS),
    ("length space before colon", "9112 5.1", Reject, b"Content-Length : 5\r\n"),
    ("length tab before colon", "9112 5.1", Reject, b"Content-Length\t: 5\r\n"),
    ("length space in name", "9112 5.1", Reject, b"Content Length: 5\r\n"),
    ("length space before name", "9112 5.2", Reject, b" Content-Length: 5\r\n"),
    ("length fold after colon", "9112 5.2", Reject, b"Content-Length:\r\n 5\r\n"),
    ("length fold behind", "9112 5.2", Reject, b"Content-Length: 5\r\n 0\r\n"),
    ("length in a fold", "9112 5.2", Reject, b"X-A: b\r\n Content-Length: 5\r\n"),
    ("length bare LF before", "9112 2.2", Reject, b"X-A: b\nContent-Length: 5\r\n"),
    ("length bare CR before", "9112 2.2", Reject, b"X-A: b\rContent-Length: 5\r\n"),
    ("length CR CR LF", "9112 2.2", Reject, b"Content-Length: 5\r\r\n"),
    ("length underscore", "bug reports", Either, b"Content_Length: 5\r\n"),
    ("length underscore beside the real one", "bug reports", Either, b"Content-Length: 5\r\nContent_Length: 0\r\n"),
    ("length dot", "bug reports", Either, b"Content.Length: 5\r\n"),
    ("length no hyphen", "bug reports", Either, b"ContentLength: 5\r\n"),
    ("length nominated", "9110 7.6.1", Either, b"Connection: content-length\r\nContent-Length: 5\r\n"),
    (
        "length nominated, other case",
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
        .map(|(name, why, want, lines)| {
            let case = case::of(*want, *name, why, case::post(lines, BODY));
            if *want == Forward { case.body(BODY) } else { case }
        })
        .collect();
    cases.extend(bodies());
    cases.extend(sweep());
    cases
}

/// Lengths that are right, with bodies that are longer, shorter, or look like requests.
fn bodies() -> Vec<Case> {
    let next = b"GET /second HTTP/1.1\r\nHost: t.test\r\n\r\n";
    let hidden = b"\r\nGET /smuggled HTTP/1.1\r\nHost: t.test\r\n\r\n";
    let length = |length: usize| format!("Content-Length: {length}\r\n").into_bytes();
    let body = |name: &str, lines: &[u8], body: &[u8]| {
        let bytes = [b"POST /body HTTP/1.1\r\nHost: t.test\r\n", lines, b"\r\n", body].concat();
        case::cut(name, "9112 6.3", bytes)
    };
    let mut cases = vec![
        case::forward("a request in the body", "9112 6.3", case::post(&length(hidden.len()), hidden)).body(*hidden),
        case::forward("a request behind the body", "9112 9.3.2", case::post(&length(5), &[BODY, next].concat()))
            .body(BODY)
            .check(Check::Next("/second")),
        case::forward("a request behind no body", "9112 6.3", case::post(b"", next))
            .body(*b"")
            .check(Check::Next("/second")),
        case::forward("a request behind length 0", "9112 6.3", case::post(&length(0), next))
            .body(*b"")
            .check(Check::Next("/second")),
        case::forward("a line end behind the body", "9112 2.2", case::post(&length(5), b"h(ll)\r\n")).body(BODY),
        case::forward("a request behind a GET", "9112 9.3.2", [&case::get(b"")[..], next].concat())
            .check(Check::Next("/second")),
        case::forward("garbage behind the body", "9112 3", case::post(&length(5), b"h(ll), world\r\n\r\n")).body(BODY),
        body("body one byte short", &length(6), BODY).alone(),
        body("body missing", &length(6), b"").alone(),
        body("body half, length 2^32+5", b"Content-Length: 4294967301\r\n", BODY),
        body("body half, length 2^31+5", b"Content-Length: 2147483653\r\n", BODY),
        body("body half, length 2^63", b"Content-Length: 9223372036854775808\r\n", BODY),
        body("body half, length 2^64-1", b"Content-Length: 18446744073709551615\r\n", BODY),
        body("body half, length in 16 digits", b"Content-Length: 1000000000000005\r\n", BODY),
    ];
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "FOO"] {
        let bytes = format!("{method} /case HTTP/1.1\r\nHost: t.test\r\nContent-Length: 5\r\n\r\nh(ll)");
        cases.push(case::either(format!("length with {method}"), "9110 9.3", bytes).body(BODY));
        let bytes = format!("{method} /case HTTP/1.1\r\nHost: t.test\r\nContent-Length: 0\r\n\r\n");
        cases.push(case::forward(format!("length 0 with {method}"), "9110 9.3", bytes).body(*b""));
    }
    cases.push(
        case::forward(
            "length in HTTP/1.0",
            "9112 6.3",
            *b"POST /case HTTP/1.0\r\nHost: t.test\r\nContent-Length: 5\r\n\r\nh(ll)",
        )
        .body(BODY),
    );
    cases
}

fn sweep() -> Vec<Case> {
    let mut cases = vec![];
    let places: [(&str, &[u8], &[u8]); 3] = [
        ("before the number", b"Content-Length:", b"5\r\n"),
        ("behind the number", b"Content-Length: 5", b"\r\n"),
        ("before the colon", b"Content-Length", b": 5\r\n"),
    ];
    for (place, before, after) in places {
        for byte in 0..=255_u8 {
            let lines = [before, &[byte][..], after].concat();
            let name = format!("sweep: length, a byte {place} 0x{byte:02x}");
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let want = match (place, byte) {
                // More digits: another number, and a body that is not all here.
                ("before the number" | "behind the number", b'1'..=b'9') => continue,
                ("before the number", b'0') => Either,
                ("behind the number", b'0') => continue,
                ("before the number" | "behind the number", b' ' | b'\t') => Forward,
                ("before the colon", _) if token => Either,
                _ => Reject,
            };
            cases.push(case::of(want, name, "9110 8.6", case::post(&lines, BODY)).swept());
        }
    }
    cases
}
