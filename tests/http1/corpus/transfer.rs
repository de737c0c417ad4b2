//! `Transfer-Encoding`: one plain `chunked` is forwarded, everything that another parser could read otherwise is refused (RFC 9112, sections 6.1, 7).

use crate::case::Want::{Either, Forward, Reject};
use crate::case::{self, Case, Want};

/// Of each request: the same chunked body. Whoever sees no chunked coding finds `5` where the next request should begin.
const BODY: &[u8] = b"5\r\nhello\r\n0\r\n\r\n";

type Row = (&'static str, &'static str, Want, &'static [u8]);

const LINES: &[Row] = &[
    ("te chunked", "9112 7.1", Forward, b"Transfer-Encoding: chunked\r\n"),
    ("te lower-case name", "9110 5.1", Forward, b"transfer-encoding: chunked\r\n"),
    ("te upper-case name", "9110 5.1", Forward, b"TRANSFER-ENCODING: chunked\r\n"),
    ("te upper-case value", "9112 7", Forward, b"Transfer-Encoding: CHUNKED\r\n"),
    ("te mixed-case value", "9112 7", Forward, b"Transfer-Encoding: cHuNkEd\r\n"),
    ("te no space", "9112 5", Forward, b"Transfer-Encoding:chunked\r\n"),
    ("te many spaces", "9112 5", Forward, b"Transfer-Encoding:    chunked\r\n"),
    ("te tab", "9112 5", Forward, b"Transfer-Encoding:\tchunked\r\n"),
    ("te space and tab behind", "9112 5", Forward, b"Transfer-Encoding: chunked \t \r\n"),
    ("te empty element first", "9110 5.6.1.2", Either, b"Transfer-Encoding: ,chunked\r\n"),
    ("te empty element last", "9110 5.6.1.2", Either, b"Transfer-Encoding: chunked,\r\n"),
    ("te empty elements", "9110 5.6.1.2", Either, b"Transfer-Encoding: , ,, chunked\r\n"),
    ("te empty", "9112 6.1", Reject, b"Transfer-Encoding:\r\n"),
    ("te only commas", "9112 6.1", Reject, b"Transfer-Encoding: ,,\r\n"),
    ("te empty line and chunked", "9112 6.1", Either, b"Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"),
    ("te chunked twice in a list", "9112 6.1", Reject, b"Transfer-Encoding: chunked, chunked\r\n"),
    ("te chunked twice in a list, no space", "9112 6.1", Reject, b"Transfer-Encoding: chunked,chunked\r\n"),
    ("te chunked on two lines", "9112 6.1", Reject, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    (
        "te chunked on two lines, other case",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\ntransfer-encoding: Chunked\r\n",
    ),
    (
        "te chunked on three lines",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ),
    ("te identity", "9112 7", Reject, b"Transfer-Encoding: identity\r\n"),
    ("te identity, chunked", "9112 7", Reject, b"Transfer-Encoding: identity, chunked\r\n"),
    ("te chunked, identity", "9112 6.1", Reject, b"Transfer-Encoding: chunked, identity\r\n"),
    (
        "te identity line, chunked line",
        "9112 7",
        Reject,
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "te chunked line, identity line",
        "9112 6.1",
        Reject,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ),
    ("te chunked line, unknown line", "9112 6.1", Reject, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n"),
    ("te unknown line, chunked line", "9112 6.1", Reject, b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n"),
    ("te gzip", "9112 6.1", Reject, b"Transfer-Encoding: gzip\r\n"),
    ("te gzip, chunked", "9112 6.1", Reject, b"Transfer-Encoding: gzip, chunked\r\n"),
    ("te chunked, gzip", "9112 6.1", Reject, b"Transfer-Encoding: chunked, gzip\r\n"),
    ("te gzip line, chunked line", "9112 6.1", Reject, b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
    ("te compress", "9112 7.2", Reject, b"Transfer-Encoding: compress\r\n"),
    ("te deflate, chunked", "9112 7.2", Reject, b"Transfer-Encoding: deflate, chunked\r\n"),
    ("te trailers", "9112 6.1", Reject, b"Transfer-Encoding: trailers\r\n"),
    ("te parameter", "9112 7.1", Reject, b"Transfer-Encoding: chunked;q=1\r\n"),
    ("te parameter with space", "9112 7.1", Reject, b"Transfer-Encoding: chunked ; a=b\r\n"),
    ("te empty parameter", "9112 7.1", Reject, b"Transfer-Encoding: chunked;\r\n"),
    ("te quoted", "9112 7", Reject, b"Transfer-Encoding: \"chunked\"\r\n"),
    ("te single quotes", "9112 7", Reject, b"Transfer-Encoding: 'chunked'\r\n"),
    ("te quoted comma", "9112 7", Reject, b"Transfer-Encoding: \"a, chunked\"\r\n"),
    ("te xchunked", "9112 7", Reject, b"Transfer-Encoding: xchunked\r\n"),
    ("te x-chunked", "9112 7", Reject, b"Transfer-Encoding: x-chunked\r\n"),
    ("te chunke", "9112 7", Reject, b"Transfer-Encoding: chunke\r\n"),
    ("te chunkedd", "9112 7", Reject, b"Transfer-Encoding: chunkedd\r\n"),
    ("te chunked chunked", "9112 7", Reject, b"Transfer-Encoding: chunked chunked\r\n"),
    ("te chunked foo", "9112 7", Reject, b"Transfer-Encoding: chunked foo\r\n"),
    ("te foo chunked", "9112 7", Reject, b"Transfer-Encoding: foo chunked\r\n"),
    ("te colon in value", "9112 7", Reject, b"Transfer-Encoding: : chunked\r\n"),
    ("te double colon", "9112 7", Reject, b"Transfer-Encoding:: chunked\r\n"),
    ("te brace", "9112 7", Reject, b"Transfer-Encoding: {chunked\r\n"),
    ("te kelvin sign", "9112 7", Reject, b"Transfer-Encoding: chun\xe2\x84\xaaed\r\n"),
    ("te byte order mark", "9112 7", Reject, b"Transfer-Encoding: \xef\xbb\xbfchunked\r\n"),
    ("te NUL behind", "9110 5.5", Reject, b"Transfer-Encoding: chunked\0\r\n"),
    ("te VT before", "9110 5.5", Reject, b"Transfer-Encoding: \x0bchunked\r\n"),
    ("te FF behind", "9110 5.5", Reject, b"Transfer-Encoding: chunked\x0c\r\n"),
    ("te NEL before", "9112 7", Reject, b"Transfer-Encoding: \x85chunked\r\n"),
    ("te NBSP before", "9112 7", Reject, b"Transfer-Encoding: \xa0chunked\r\n"),
    ("te NBSP behind", "9112 7", Reject, b"Transfer-Encoding: chunked\xa0\r\n"),
    ("te space before colon", "9112 5.1", Reject, b"Transfer-Encoding : chunked\r\n"),
    ("te tab before colon", "9112 5.1", Reject, b"Transfer-Encoding\t: chunked\r\n"),
    ("te NUL before colon", "9112 5.1", Reject, b"Transfer-Encoding\0: chunked\r\n"),
    ("te space before name", "9112 5.2", Reject, b" Transfer-Encoding: chunked\r\n"),
    ("te tab before name", "9112 5.2", Reject, b"\tTransfer-Encoding: chunked\r\n"),
    ("te space before name, after a field", "9112 5.2", Reject, b"X-A: b\r\n Transfer-Encoding: chunked\r\n"),
    ("te fold after colon", "9112 5.2", Reject, b"Transfer-Encoding:\r\n chunked\r\n"),
    ("te fold after colon with tab", "9112 5.2", Reject, b"Transfer-Encoding:\r\n\tchunked\r\n"),
    ("te fold behind", "9112 5.2", Reject, b"Transfer-Encoding: chunked\r\n , identity\r\n"),
    ("te fold empty", "9112 5.2", Reject, b"Transfer-Encoding: chunked\r\n \r\n"),
    ("te fold in a list", "9112 5.2", Reject, b"Transfer-Encoding: identity,\r\n chunked\r\n"),
    ("te bare LF before", "9112 2.2", Reject, b"X-A: b\nTransfer-Encoding: chunked\r\n"),
    ("te bare CR before", "9112 2.2", Reject, b"X-A: b\rTransfer-Encoding: chunked\r\n"),
    ("te bare LF behind", "9112 2.2", Reject, b"Transfer-Encoding: chunked\nX-A: b\r\n"),
    ("te bare CR behind", "9112 2.2", Reject, b"Transfer-Encoding: chunked\rX-A: b\r\n"),
    ("te CR CR LF", "9112 2.2", Reject, b"Transfer-Encoding: chunked\r\r\n"),
    ("te bare LF after colon", "9112 2.2", Reject, b"Transfer-Encoding:\n chunked\r\n"),
    ("te underscore", "bug reports", Either, b"Transfer_Encoding: chunked\r\n"),
    ("te dot", "bug reports", Either, b"Transfer.Encoding: chunked\r\n"),
    ("te no hyphen", "bug reports", Either, b"TransferEncoding: chunked\r\n"),
    ("te hyphen behind", "bug reports", Either, b"Transfer-Encoding-: chunked\r\n"),
    ("te no colon", "9112 5", Reject, b"Transfer-Encoding chunked\r\n"),
    ("te name in quotes", "9112 5.1", Reject, b"\"Transfer-Encoding\": chunked\r\n"),
    ("te long s in name", "9112 5.1", Reject, b"Tran\xc5\xbffer-Encoding: chunked\r\n"),
    ("te and length", "9112 6.1", Reject, b"Transfer-Encoding: chunked\r\nContent-Length: 15\r\n"),
    ("te and length before", "9112 6.1", Reject, b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n"),
    ("te and length 0", "9112 6.1", Reject, b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    ("te and short length", "9112 6.1", Reject, b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
    ("te and bad length", "9112 6.1", Reject, b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n"),
    ("te and empty length", "9112 6.1", Reject, b"Content-Length:\r\nTransfer-Encoding: chunked\r\n"),
    (
        "te and two lengths",
        "9112 6.1",
        Reject,
        b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\nContent-Length: 15\r\n",
    ),
    (
        "te and length, nominated",
        "9110 7.6.1",
        Reject,
        b"Connection: content-length\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    ),
    ("te identity and length", "9112 6.1", Reject, b"Content-Length: 15\r\nTransfer-Encoding: identity\r\n"),
    ("te empty and length", "9112 6.1", Reject, b"Content-Length: 15\r\nTransfer-Encoding:\r\n"),
    ("te unknown and length", "9112 6.1", Reject, b"Content-Length: 15\r\nTransfer-Encoding: cow\r\n"),
    ("te with NUL and length", "9112 6.1", Reject, b"Content-Length: 15\r\nTransfer-Encoding: chunked\0\r\n"),
    (
        "te with space before colon and length",
        "9112 6.1",
        Reject,
        b"Content-Length: 15\r\nTransfer-Encoding : chunked\r\n",
    ),
    ("te underscore and length", "bug reports", Either, b"Content-Length: 15\r\nTransfer_Encoding: chunked\r\n"),
    ("te nominated", "9110 7.6.1", Either, b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n"),
];

/// Where a byte is put by the sweep, and what is right when the byte is harmless there.
const PLACES: &[(&str, &[u8], &[u8])] = &[
    ("before the name", b"", b"Transfer-Encoding: chunked\r\n"),
    ("in the name", b"Transfer", b"Encoding: chunked\r\n"),
    ("before the colon", b"Transfer-Encoding", b": chunked\r\n"),
    ("after the colon", b"Transfer-Encoding:", b"chunked\r\n"),
    ("in the value", b"Transfer-Encoding: chun", b"ked\r\n"),
    ("behind the value", b"Transfer-Encoding: chunked", b"\r\n"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = LINES
        .iter()
        .map(|(name, why, want, lines)| {
            let case = case::of(*want, *name, why, case::post(lines, BODY));
            if *want == Forward { case.body(*b"hello") } else { case }
        })
        .collect();
    cases.push(case::reject(
        "te in HTTP/1.0",
        "9112 6.1",
        *b"POST /case HTTP/1.0\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ));
    cases.push(case::reject(
        "te in HTTP/1.0, kept alive",
        "9112 6.1",
        *b"POST /case HTTP/1.0\r\nHost: t.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ));
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "FOO"] {
        let bytes = format!(
            "{method} /case HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        cases.push(case::either(format!("te with {method}"), "9110 9.3", bytes).body(*b"hello"));
    }
    cases.extend(sweep());
    cases
}

/// Every byte at every place: space and tab are harmless around the value, an empty element around a comma; all else is refused or another field.
fn sweep() -> Vec<Case> {
    let mut cases = vec![];
    for (place, before, after) in PLACES {
        for byte in 0..=255_u8 {
            let lines = [before, &[byte][..], after].concat();
            let name = format!("sweep: te, a byte {place} 0x{byte:02x}");
            let around_value = matches!(*place, "after the colon" | "behind the value");
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let want = match (*place, byte) {
                (_, b' ' | b'\t') if around_value => Forward,
                (_, b',') if around_value => Either,
                ("in the name", b'-') => Forward,
                ("before the name" | "in the name" | "before the colon", _) if token => Either,
                // The rest of the value becomes part of the name, or there are two colons.
                ("in the name", b':') => Either,
                _ => Reject,
            };
            cases.push(case::of(want, name, "9112 5, 6.1", case::post(&lines, BODY)).swept());
        }
    }
    cases
}
