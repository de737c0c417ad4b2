//! Chunked coding (RFC 9112, section 7.1): sizes and line ends must be exact, extensions are
//! dropped, and trailer fields for framing or authentication are dropped or refused.

use crate::case::Expect::{AbortBody, Either, Forward};
use crate::case::{self, Case, Expect};

/// Title, deciding section, expected reaction, chunked body.
type Row = (&'static str, &'static str, Expect, &'static [u8]);

const BODIES: &[Row] = &[
    ("chunk", "9112 7.1", Forward, b"5\r\nhello\r\n0\r\n\r\n"),
    ("chunks", "9112 7.1", Forward, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    ("chunk size with leading zeros", "9112 7.1", Either, b"0005\r\nhello\r\n0\r\n\r\n"),
    (
        "chunk size with 40 leading zeros",
        "9112 7.1",
        Either,
        b"00000000000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    ("last chunk with many zeros", "9112 7.1", Either, b"5\r\nhello\r\n0000\r\n\r\n"),
    ("last chunk with 40 zeros", "9112 7.1", Either, b"5\r\nhello\r\n0000000000000000000000000000000000000000\r\n\r\n"),
    ("chunk extension", "9112 7.1.1", Either, b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension without value", "9112 7.1.1", Either, b"5;a\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension with a quoted value", "9112 7.1.1", Either, b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension with an escaped quote", "9112 7.1.1", Either, b"5;a=\"b\\\"c\"\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension, space before", "9112 7.1.1", Either, b"5 ;a=b\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension, spaces within", "9112 7.1.1", Either, b"5 ; a = b\r\nhello\r\n0\r\n\r\n"),
    ("empty chunk extension", "9112 7.1.1", Either, b"5;\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension on the last chunk", "9112 7.1.1", Either, b"5\r\nhello\r\n0;a=b\r\n\r\n"),
    ("chunk extension that looks like a size", "9112 7.1.1", Either, b"5;0\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension with an unclosed quote", "9112 7.1.1", Either, b"5;a=\"b\r\nhello\r\n0\r\n\r\n"),
    ("chunk size, space after", "9112 7.1", Either, b"5 \r\nhello\r\n0\r\n\r\n"),
    ("chunk size, tab after", "9112 7.1", Either, b"5\t\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension with bare LF", "9112 7.1.1", AbortBody, b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension with bare LF only", "9112 7.1.1", AbortBody, b"5;\nhello\r\n0\r\n\r\n"),
    ("chunk extension with bare CR", "9112 7.1.1", AbortBody, b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension with bare CR last", "9112 7.1.1", AbortBody, b"5;a\r\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension with quoted LF", "9112 7.1.1", AbortBody, b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension with NUL", "9112 7.1.1", AbortBody, b"5;a\0\r\nhello\r\n0\r\n\r\n"),
    (
        "chunk extension that hides a request",
        "bug reports",
        AbortBody,
        b"1;\n5\r\nX\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t.test\r\n\r\n\r\n0\r\n\r\n",
    ),
    ("chunk extension on the last chunk with LF", "9112 7.1.1", AbortBody, b"5\r\nhello\r\n0;a\n\r\n\r\n"),
    ("chunk size 0x5", "9112 7.1", AbortBody, b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size +5", "9112 7.1", AbortBody, b"+5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size -5", "9112 7.1", AbortBody, b"-5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size -0", "9112 7.1", AbortBody, b"5\r\nhello\r\n-0\r\n\r\n"),
    ("chunk size 0_5", "9112 7.1", AbortBody, b"0_5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 5h", "9112 7.1", AbortBody, b"5h\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 5.", "9112 7.1", AbortBody, b"5.\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 5,a", "9112 7.1", AbortBody, b"5,a\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 5 5", "9112 7.1", AbortBody, b"5 5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size quoted", "9112 7.1", AbortBody, b"\"5\"\r\nhello\r\n0\r\n\r\n"),
    ("chunk size G", "9112 7.1", AbortBody, b"G\r\nhello\r\n0\r\n\r\n"),
    ("chunk size empty", "9112 7.1", AbortBody, b"\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension without a size", "9112 7.1", AbortBody, b";a=b\r\nhello\r\n0\r\n\r\n"),
    ("chunk size, space before", "9112 7.1", AbortBody, b" 5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size, tab before", "9112 7.1", AbortBody, b"\t5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size, NUL after", "9112 7.1", AbortBody, b"5\0\r\nhello\r\n0\r\n\r\n"),
    ("chunk size, VT after", "9112 7.1", AbortBody, b"5\x0b\r\nhello\r\n0\r\n\r\n"),
    ("chunk size, NBSP after", "9112 7.1", AbortBody, b"5\xa0\r\nhello\r\n0\r\n\r\n"),
    ("chunk size in full-width digits", "9112 7.1", AbortBody, b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 2^64+5", "9112 7.1", AbortBody, b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("chunk size of 17 digits", "9112 7.1", AbortBody, b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 2^64-1", "9112 7.1", AbortBody, b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 2^64-5", "9112 7.1", AbortBody, b"FFFFFFFFFFFFFFFB\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 2^63", "9112 7.1", AbortBody, b"8000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 2^32+5", "9112 7.1", AbortBody, b"100000005\r\nhello\r\n0\r\n\r\n"),
    ("chunk size 2^31+5", "9112 7.1", AbortBody, b"80000005\r\nhello\r\n0\r\n\r\n"),
    ("chunk size line ends with LF", "9112 2.2", AbortBody, b"5\nhello\r\n0\r\n\r\n"),
    ("chunk size line ends with CR", "9112 2.2", AbortBody, b"5\rhello\r\n0\r\n\r\n"),
    ("chunk size line ends with CR CR LF", "9112 2.2", AbortBody, b"5\r\r\nhello\r\n0\r\n\r\n"),
    ("chunk size line ends with LF CR", "9112 2.2", AbortBody, b"5\n\rhello\r\n0\r\n\r\n"),
    ("chunk data without CRLF", "9112 7.1", AbortBody, b"5\r\nhello0\r\n\r\n"),
    ("chunk data ends with LF", "9112 7.1", AbortBody, b"5\r\nhello\n0\r\n\r\n"),
    ("chunk data ends with CR", "9112 7.1", AbortBody, b"5\r\nhello\r0\r\n\r\n"),
    ("chunk data ends with CR CR LF", "9112 7.1", AbortBody, b"5\r\nhello\r\r\n0\r\n\r\n"),
    ("chunk data ends with LF CR", "9112 7.1", AbortBody, b"5\r\nhello\n\r0\r\n\r\n"),
    ("chunk data ends with two other bytes", "bug reports", AbortBody, b"5\r\nhelloXX0\r\n\r\n"),
    ("chunk data longer than the size", "9112 7.1", AbortBody, b"5\r\nhello!\r\n0\r\n\r\n"),
    ("chunk data shorter than the size", "9112 7.1", AbortBody, b"6\r\nhello\r\n0\r\n\r\n"),
    ("all lines end with LF", "9112 2.2", AbortBody, b"5\nhello\n0\n\n"),
    ("last chunk ends with LF", "9112 7.1", AbortBody, b"5\r\nhello\r\n0\n\r\n"),
    ("last chunk ends with LF LF", "9112 7.1", AbortBody, b"5\r\nhello\r\n0\n\n"),
    ("body ends with LF", "9112 7.1", AbortBody, b"5\r\nhello\r\n0\r\n\n"),
    ("body ends with CR", "9112 7.1", AbortBody, b"5\r\nhello\r\n0\r\n\r"),
    ("last chunk, space before", "9112 7.1", AbortBody, b"5\r\nhello\r\n 0\r\n\r\n"),
    ("trailer with space before colon", "9112 5.1", AbortBody, b"5\r\nhello\r\n0\r\nX-A : b\r\n\r\n"),
    ("trailer without colon", "9112 5", AbortBody, b"5\r\nhello\r\n0\r\nX-A\r\n\r\n"),
    ("trailer without name", "9112 5", AbortBody, b"5\r\nhello\r\n0\r\n: b\r\n\r\n"),
    ("trailer with bare LF", "9112 2.2", AbortBody, b"5\r\nhello\r\n0\r\nX-A: b\n\r\n"),
    ("trailer with bare CR", "9112 2.2", AbortBody, b"5\r\nhello\r\n0\r\nX-A: b\rc\r\n\r\n"),
    ("trailer with NUL", "9110 5.5", AbortBody, b"5\r\nhello\r\n0\r\nX-A: b\0\r\n\r\n"),
    ("trailer with obs-fold", "9112 5.2", AbortBody, b"5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n"),
    (
        "trailer that is a request",
        "bug reports",
        AbortBody,
        b"5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\nHost: t.test\r\n\r\n",
    ),
    ("trailer", "9112 7.1.2", Forward, b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"),
    ("trailer field content-length", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"),
    (
        "trailer field transfer-encoding",
        "9110 6.5.1",
        Either,
        b"5\r\nhello\r\n0\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    ("trailer field host", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nHost: other.test\r\n\r\n"),
    ("trailer field authorization", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n"),
    ("trailer field cookie", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nCookie: a=b\r\n\r\n"),
    ("trailer field connection", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nConnection: x-a\r\n\r\n"),
    ("trailer field te", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nTE: gzip\r\n\r\n"),
    ("trailer field trailer", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"),
    ("trailer field upgrade", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nUpgrade: h2c\r\n\r\n"),
    ("trailer field content-type", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nContent-Type: a/b\r\n\r\n"),
    ("trailer field content-encoding", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nContent-Encoding: gzip\r\n\r\n"),
    ("trailer field expect", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nExpect: 100-continue\r\n\r\n"),
    ("trailer field max-forwards", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nMax-Forwards: 0\r\n\r\n"),
    ("trailer field x-forwarded-for", "9110 6.5.1", Either, b"5\r\nhello\r\n0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"),
    ("garbage after the last chunk", "9112 3", Either, b"5\r\nhello\r\n0\r\n\r\nGARBAGE\r\n\r\n"),
];

fn body(expect: Expect, name: impl Into<String>, rule: &'static str, chunks: &[u8]) -> Case {
    let head = b"POST /body HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    case::new(expect, name, rule, [head, chunks].concat())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = BODIES
        .iter()
        .map(|(name, rule, expect, chunks)| {
            let case = body(*expect, *name, rule, chunks);
            if *expect == AbortBody { case } else { case.body(*b"hello") }
        })
        .collect();
    cases.extend([
        body(AbortBody, "no chunk at all", "9112 8", b"").without_canary(),
        body(AbortBody, "incomplete chunk data", "9112 8", b"5\r\nhel").without_canary(),
        body(AbortBody, "no last chunk", "9112 8", b"5\r\nhello\r\n").without_canary(),
        body(AbortBody, "last chunk without the empty line", "9112 8", b"5\r\nhello\r\n0\r\n").without_canary(),
        body(AbortBody, "incomplete chunk size line", "9112 8", b"5\r\nhello\r\n1").without_canary(),
        body(AbortBody, "chunk size line of 100,000 bytes", "9112 7.1.1", &[b"5;", &vec![b'a'; 100_000][..]].concat())
            .without_canary(),
        body(
            AbortBody,
            "chunk size of 100,000 zeros",
            "9112 7.1",
            &[&vec![b'0'; 100_000][..], b"5\r\nhello\r\n0\r\n\r\n"].concat(),
        ),
        body(
            AbortBody,
            "trailers of 100,000 bytes",
            "9112 7.1.2",
            &[b"0\r\nX-A: ", &vec![b'a'; 100_000][..], b"\r\n\r\n"].concat(),
        ),
        body(AbortBody, "5000 trailers", "9112 7.1.2", &[b"0\r\n", &b"X-A: b\r\n".repeat(5000)[..], b"\r\n"].concat()),
        body(Forward, "1000 chunks of one byte", "9112 7.1", &[&b"1\r\na\r\n".repeat(1000)[..], b"0\r\n\r\n"].concat())
            .body(vec![b'a'; 1000]),
        body(
            Either,
            "1000 chunks with extensions of 200 bytes",
            "9112 7.1.1",
            &[&[b"1;", &[b'x'; 200][..], b"\r\na\r\n"].concat().repeat(1000)[..], b"0\r\n\r\n"].concat(),
        ),
        body(
            Forward,
            "chunk of 64 KiB",
            "9112 7.1",
            &[b"10000\r\n", &vec![b'z'; 65536][..], b"\r\n0\r\n\r\n"].concat(),
        )
        .body(vec![b'z'; 65536]),
        body(Forward, "chunk size in both cases", "9112 7.1", b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n")
            .body(*b"01234567890123456789a"),
    ]);
    cases.extend(sweep());
    cases
}

/// Inserts every byte before and after a size, and in place of a line end's CR.
fn sweep() -> Vec<Case> {
    let mut cases = vec![];
    let places: [(&str, &[u8], &[u8]); 5] = [
        ("before the size", b"", b"5\r\nhello\r\n0\r\n\r\n"),
        ("after the size", b"5", b"\r\nhello\r\n0\r\n\r\n"),
        ("after the data", b"5\r\nhello", b"\r\n0\r\n\r\n"),
        ("instead of the data's CR", b"5\r\nhello", b"\n0\r\n\r\n"),
        ("before the last size", b"5\r\nhello\r\n", b"0\r\n\r\n"),
    ];
    for (place, before, after) in places {
        for byte in 0..=255_u8 {
            let name = format!("sweep: a byte {place} 0x{byte:02x}");
            let expect = match (place, byte) {
                ("instead of the data's CR", b'\r') => Forward,
                ("before the size", b'0')
                | ("after the size", b' ' | b'\t' | b';')
                | ("before the last size", b'0') => Either,
                _ => AbortBody,
            };
            cases.push(body(expect, name, "9112 7.1", &[before, &[byte], after].concat()).in_sweep());
        }
    }
    cases
}
