//! `Transfer-Encoding` (RFC 9112, sections 6.1 and 7): one plain `chunked` is forwarded. Everything
//! that another parser could read differently is refused.

use crate::case::Expect::{Either, Forward, Reject};
use crate::case::{self, Case, Expect};

/// All requests have this chunked body. A parser that sees no chunked coding finds `5` where the
/// next request should begin.
const BODY: &[u8] = b"5\r\nhello\r\n0\r\n\r\n";

/// Title, deciding section, expected reaction, field lines.
type Row = (&'static str, &'static str, Expect, &'static [u8]);

const LINES: &[Row] = &[
    ("Transfer-Encoding chunked", "9112 7.1", Forward, b"Transfer-Encoding: chunked\r\n"),
    ("Transfer-Encoding lower-case name", "9110 5.1", Forward, b"transfer-encoding: chunked\r\n"),
    ("Transfer-Encoding upper-case name", "9110 5.1", Forward, b"TRANSFER-ENCODING: chunked\r\n"),
    ("Transfer-Encoding upper-case value", "9112 7", Forward, b"Transfer-Encoding: CHUNKED\r\n"),
    ("Transfer-Encoding mixed-case value", "9112 7", Forward, b"Transfer-Encoding: cHuNkEd\r\n"),
    ("Transfer-Encoding no space", "9112 5", Forward, b"Transfer-Encoding:chunked\r\n"),
    ("Transfer-Encoding many spaces", "9112 5", Forward, b"Transfer-Encoding:    chunked\r\n"),
    ("te tab", "9112 5", Forward, b"Transfer-Encoding:\tchunked\r\n"),
    ("Transfer-Encoding space and tab after", "9112 5", Forward, b"Transfer-Encoding: chunked \t \r\n"),
    ("Transfer-Encoding empty element first", "9110 5.6.1.2", Either, b"Transfer-Encoding: ,chunked\r\n"),
    ("Transfer-Encoding empty element last", "9110 5.6.1.2", Either, b"Transfer-Encoding: chunked,\r\n"),
    ("Transfer-Encoding empty elements", "9110 5.6.1.2", Either, b"Transfer-Encoding: , ,, chunked\r\n"),
    ("Transfer-Encoding empty", "9112 6.1", Reject, b"Transfer-Encoding:\r\n"),
    ("Transfer-Encoding only commas", "9112 6.1", Reject, b"Transfer-Encoding: ,,\r\n"),
    (
        "Transfer-Encoding empty line and chunked",
        "9112 6.1",
        Either,
        b"Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n",
    ),
    ("Transfer-Encoding chunked twice in a list", "9112 6.1", Reject, b"Transfer-Encoding: chunked, chunked\r\n"),
    (
        "Transfer-Encoding chunked twice in a list, no space",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked,chunked\r\n",
    ),
    (
        "Transfer-Encoding chunked on two lines",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding chunked on two lines, other case",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\ntransfer-encoding: Chunked\r\n",
    ),
    (
        "Transfer-Encoding chunked on three lines",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ),
    ("Transfer-Encoding identity", "9112 7", Reject, b"Transfer-Encoding: identity\r\n"),
    ("Transfer-Encoding identity, chunked", "9112 7", Reject, b"Transfer-Encoding: identity, chunked\r\n"),
    ("Transfer-Encoding chunked, identity", "9112 6.1", Reject, b"Transfer-Encoding: chunked, identity\r\n"),
    (
        "Transfer-Encoding identity line, chunked line",
        "9112 7",
        Reject,
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding chunked line, identity line",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ),
    (
        "Transfer-Encoding chunked line, unknown line",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n",
    ),
    (
        "Transfer-Encoding unknown line, chunked line",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n",
    ),
    ("Transfer-Encoding gzip", "9112 6.1", Reject, b"Transfer-Encoding: gzip\r\n"),
    ("Transfer-Encoding gzip, chunked", "9112 6.1", Reject, b"Transfer-Encoding: gzip, chunked\r\n"),
    ("Transfer-Encoding chunked, gzip", "9112 6.1", Reject, b"Transfer-Encoding: chunked, gzip\r\n"),
    (
        "Transfer-Encoding gzip line, chunked line",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    ),
    ("Transfer-Encoding compress", "9112 7.2", Reject, b"Transfer-Encoding: compress\r\n"),
    ("Transfer-Encoding deflate, chunked", "9112 7.2", Reject, b"Transfer-Encoding: deflate, chunked\r\n"),
    ("Transfer-Encoding trailers", "9112 6.1", Reject, b"Transfer-Encoding: trailers\r\n"),
    ("Transfer-Encoding parameter", "9112 7.1", Reject, b"Transfer-Encoding: chunked;q=1\r\n"),
    ("Transfer-Encoding parameter with space", "9112 7.1", Reject, b"Transfer-Encoding: chunked ; a=b\r\n"),
    ("Transfer-Encoding empty parameter", "9112 7.1", Reject, b"Transfer-Encoding: chunked;\r\n"),
    ("Transfer-Encoding quoted", "9112 7", Reject, b"Transfer-Encoding: \"chunked\"\r\n"),
    ("Transfer-Encoding single quotes", "9112 7", Reject, b"Transfer-Encoding: 'chunked'\r\n"),
    ("Transfer-Encoding quoted comma", "9112 7", Reject, b"Transfer-Encoding: \"a, chunked\"\r\n"),
    ("Transfer-Encoding xchunked", "9112 7", Reject, b"Transfer-Encoding: xchunked\r\n"),
    ("Transfer-Encoding x-chunked", "9112 7", Reject, b"Transfer-Encoding: x-chunked\r\n"),
    ("Transfer-Encoding chunke", "9112 7", Reject, b"Transfer-Encoding: chunke\r\n"),
    ("Transfer-Encoding chunkedd", "9112 7", Reject, b"Transfer-Encoding: chunkedd\r\n"),
    ("Transfer-Encoding chunked chunked", "9112 7", Reject, b"Transfer-Encoding: chunked chunked\r\n"),
    ("Transfer-Encoding chunked foo", "9112 7", Reject, b"Transfer-Encoding: chunked foo\r\n"),
    ("Transfer-Encoding foo chunked", "9112 7", Reject, b"Transfer-Encoding: foo chunked\r\n"),
    ("Transfer-Encoding colon in value", "9112 7", Reject, b"Transfer-Encoding: : chunked\r\n"),
    ("Transfer-Encoding double colon", "9112 7", Reject, b"Transfer-Encoding:: chunked\r\n"),
    ("Transfer-Encoding brace", "9112 7", Reject, b"Transfer-Encoding: {chunked\r\n"),
    ("Transfer-Encoding kelvin sign", "9112 7", Reject, b"Transfer-Encoding: chun\xe2\x84\xaaed\r\n"),
    ("Transfer-Encoding byte order mark", "9112 7", Reject, b"Transfer-Encoding: \xef\xbb\xbfchunked\r\n"),
    ("Transfer-Encoding NUL after", "9110 5.5", Reject, b"Transfer-Encoding: chunked\0\r\n"),
    ("Transfer-Encoding VT before", "9110 5.5", Reject, b"Transfer-Encoding: \x0bchunked\r\n"),
    ("Transfer-Encoding FF after", "9110 5.5", Reject, b"Transfer-Encoding: chunked\x0c\r\n"),
    ("Transfer-Encoding NEL before", "9112 7", Reject, b"Transfer-Encoding: \x85chunked\r\n"),
    ("Transfer-Encoding NBSP before", "9112 7", Reject, b"Transfer-Encoding: \xa0chunked\r\n"),
    ("Transfer-Encoding NBSP after", "9112 7", Reject, b"Transfer-Encoding: chunked\xa0\r\n"),
    ("Transfer-Encoding space before colon", "9112 5.1", Reject, b"Transfer-Encoding : chunked\r\n"),
    ("Transfer-Encoding tab before colon", "9112 5.1", Reject, b"Transfer-Encoding\t: chunked\r\n"),
    ("Transfer-Encoding NUL before colon", "9112 5.1", Reject, b"Transfer-Encoding\0: chunked\r\n"),
    ("Transfer-Encoding space before name", "9112 5.2", Reject, b" Transfer-Encoding: chunked\r\n"),
    ("Transfer-Encoding tab before name", "9112 5.2", Reject, b"\tTransfer-Encoding: chunked\r\n"),
    (
        "Transfer-Encoding space before name, after a field",
        "9112 5.2",
        Reject,
        b"X-A: b\r\n Transfer-Encoding: chunked\r\n",
    ),
    ("Transfer-Encoding obs-fold after colon", "9112 5.2", Reject, b"Transfer-Encoding:\r\n chunked\r\n"),
    ("te fold after colon with tab", "9112 5.2", Reject, b"Transfer-Encoding:\r\n\tchunked\r\n"),
    ("Transfer-Encoding obs-fold after", "9112 5.2", Reject, b"Transfer-Encoding: chunked\r\n , identity\r\n"),
    ("Transfer-Encoding obs-fold empty", "9112 5.2", Reject, b"Transfer-Encoding: chunked\r\n \r\n"),
    ("Transfer-Encoding obs-fold in a list", "9112 5.2", Reject, b"Transfer-Encoding: identity,\r\n chunked\r\n"),
    ("Transfer-Encoding bare LF before", "9112 2.2", Reject, b"X-A: b\nTransfer-Encoding: chunked\r\n"),
    ("Transfer-Encoding bare CR before", "9112 2.2", Reject, b"X-A: b\rTransfer-Encoding: chunked\r\n"),
    ("Transfer-Encoding bare LF after", "9112 2.2", Reject, b"Transfer-Encoding: chunked\nX-A: b\r\n"),
    ("Transfer-Encoding bare CR after", "9112 2.2", Reject, b"Transfer-Encoding: chunked\rX-A: b\r\n"),
    ("Transfer-Encoding CR CR LF", "9112 2.2", Reject, b"Transfer-Encoding: chunked\r\r\n"),
    ("Transfer-Encoding bare LF after colon", "9112 2.2", Reject, b"Transfer-Encoding:\n chunked\r\n"),
    ("Transfer-Encoding underscore", "bug reports", Either, b"Transfer_Encoding: chunked\r\n"),
    ("Transfer-Encoding dot", "bug reports", Either, b"Transfer.Encoding: chunked\r\n"),
    ("Transfer-Encoding no hyphen", "bug reports", Either, b"TransferEncoding: chunked\r\n"),
    ("Transfer-Encoding hyphen after", "bug reports", Either, b"Transfer-Encoding-: chunked\r\n"),
    ("Transfer-Encoding no colon", "9112 5", Reject, b"Transfer-Encoding chunked\r\n"),
    ("Transfer-Encoding name in quotes", "9112 5.1", Reject, b"\"Transfer-Encoding\": chunked\r\n"),
    ("Transfer-Encoding long s in name", "9112 5.1", Reject, b"Tran\xc5\xbffer-Encoding: chunked\r\n"),
    (
        "Transfer-Encoding and Content-Length",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\nContent-Length: 15\r\n",
    ),
    (
        "Transfer-Encoding and Content-Length before",
        "9112 6.1",
        Reject,
        b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding and Content-Length 0",
        "9112 6.1",
        Reject,
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding and short Content-Length",
        "9112 6.1",
        Reject,
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding and bad Content-Length",
        "9112 6.1",
        Reject,
        b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding and empty Content-Length",
        "9112 6.1",
        Reject,
        b"Content-Length:\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding and two Content-Lengths",
        "9112 6.1",
        Reject,
        b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\nContent-Length: 15\r\n",
    ),
    (
        "Transfer-Encoding and Content-Length, listed in Connection",
        "9110 7.6.1",
        Reject,
        b"Connection: content-length\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding identity and Content-Length",
        "9112 6.1",
        Reject,
        b"Content-Length: 15\r\nTransfer-Encoding: identity\r\n",
    ),
    ("Transfer-Encoding empty and Content-Length", "9112 6.1", Reject, b"Content-Length: 15\r\nTransfer-Encoding:\r\n"),
    (
        "Transfer-Encoding unknown and Content-Length",
        "9112 6.1",
        Reject,
        b"Content-Length: 15\r\nTransfer-Encoding: cow\r\n",
    ),
    (
        "Transfer-Encoding with NUL and Content-Length",
        "9112 6.1",
        Reject,
        b"Content-Length: 15\r\nTransfer-Encoding: chunked\0\r\n",
    ),
    (
        "Transfer-Encoding with space before colon and Content-Length",
        "9112 6.1",
        Reject,
        b"Content-Length: 15\r\nTransfer-Encoding : chunked\r\n",
    ),
    (
        "Transfer-Encoding underscore and Content-Length",
        "bug reports",
        Either,
        b"Content-Length: 15\r\nTransfer_Encoding: chunked\r\n",
    ),
    (
        "Transfer-Encoding listed in Connection",
        "9110 7.6.1",
        Either,
        b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
    ),
];

/// Places where the sweep inserts a byte: title, bytes before it, bytes after it.
const PLACES: &[(&str, &[u8], &[u8])] = &[
    ("before the name", b"", b"Transfer-Encoding: chunked\r\n"),
    ("in the name", b"Transfer", b"Encoding: chunked\r\n"),
    ("before the colon", b"Transfer-Encoding", b": chunked\r\n"),
    ("after the colon", b"Transfer-Encoding:", b"chunked\r\n"),
    ("in the value", b"Transfer-Encoding: chun", b"ked\r\n"),
    ("after the value", b"Transfer-Encoding: chunked", b"\r\n"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = LINES
        .iter()
        .map(|(name, rule, expect, lines)| {
            let case = case::new(*expect, *name, rule, case::post(lines, BODY));
            if *expect == Forward { case.body(*b"hello") } else { case }
        })
        .collect();
    cases.push(case::reject(
        "Transfer-Encoding in HTTP/1.0",
        "9112 6.1",
        *b"POST /case HTTP/1.0\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ));
    cases.push(case::reject(
        "Transfer-Encoding in HTTP/1.0, keep-alive",
        "9112 6.1",
        *b"POST /case HTTP/1.0\r\nHost: t.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ));
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "FOO"] {
        let bytes = format!(
            "{method} /case HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        cases.push(case::either(format!("Transfer-Encoding with {method}"), "9110 9.3", bytes).body(*b"hello"));
    }
    cases.extend(sweep());
    cases
}

/// Inserts every byte at every place. Space and tab are harmless around the value, and so is a
/// comma, which makes an empty list element. All other bytes are refused or make another field
/// name.
fn sweep() -> Vec<Case> {
    let mut cases = vec![];
    for (place, before, after) in PLACES {
        for byte in 0..=255_u8 {
            let lines = [before, &[byte][..], after].concat();
            let name = format!("sweep: Transfer-Encoding, a byte {place} 0x{byte:02x}");
            let around_value = matches!(*place, "after the colon" | "after the value");
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let expect = match (*place, byte) {
                (_, b' ' | b'\t') if around_value => Forward,
                (_, b',') if around_value => Either,
                ("in the name", b'-') => Forward,
                ("before the name" | "in the name" | "before the colon", _) if token => Either,
                // The colon ends the name earlier, so this is another field.
                ("in the name", b':') => Either,
                _ => Reject,
            };
            cases.push(case::new(expect, name, "9112 5, 6.1", case::post(&lines, BODY)).in_sweep());
        }
    }
    cases
}
