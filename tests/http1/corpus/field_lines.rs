//! Line ends and field lines: exact CRLF, a token as name, a colon, a value (RFC 9112, sections 2.2
//! and 5; RFC 9110, sections 5.1 and 5.5).

use crate::case::Expect::{Either, Forward, Reject};
use crate::case::{self, Case, Expect};

/// Title, deciding section, expected reaction, bytes.
type Row = (&'static str, &'static str, Expect, &'static [u8]);

/// Complete requests.
const REQUESTS: &[Row] = &[
    ("plain", "9112 2.1", Forward, b"GET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    ("all lines end with LF", "9112 2.2", Reject, b"GET /case HTTP/1.1\nHost: t.test\n\n"),
    ("request line ends with LF", "9112 2.2", Reject, b"GET /case HTTP/1.1\nHost: t.test\r\n\r\n"),
    ("field line ends with LF", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\nHost: t.test\n\r\n"),
    ("header section ends with LF", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\nHost: t.test\r\n\n"),
    ("header section ends with LF CR LF", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\nHost: t.test\n\r\n"),
    ("all lines end with CR", "9112 2.2", Reject, b"GET /case HTTP/1.1\rHost: t.test\r\r"),
    ("request line ends with CR", "9112 2.2", Reject, b"GET /case HTTP/1.1\rHost: t.test\r\n\r\n"),
    ("field line ends with CR", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\nHost: t.test\rX-A: b\r\n\r\n"),
    ("request line ends with CR CR LF", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\r\nHost: t.test\r\n\r\n"),
    ("field line ends with CR CR LF", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\nHost: t.test\r\r\n\r\n"),
    ("header section ends with CR CR LF", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\nHost: t.test\r\n\r\r\n"),
    (
        "header section ends with CR and a request",
        "9112 2.2",
        Reject,
        b"GET /case HTTP/1.1\r\nHost: t.test\r\n\rGET /smuggled HTTP/1.1\r\nHost: t.test\r\n\r\n",
    ),
    ("all lines end with LF CR", "9112 2.2", Reject, b"GET /case HTTP/1.1\n\rHost: t.test\n\r\n\r"),
    ("lines end with NEL", "9112 2.2", Reject, b"GET /case HTTP/1.1\x85Host: t.test\x85\x85\r\n\r\n"),
    ("one empty line first", "9112 2.2", Forward, b"\r\nGET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    ("two empty lines first", "9112 2.2", Either, b"\r\n\r\nGET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    ("LF first", "9112 2.2", Either, b"\nGET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    ("CR first", "9112 2.2", Reject, b"\rGET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    ("space first", "9112 3", Reject, b" GET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    ("tab first", "9112 3", Reject, b"\tGET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    ("NUL first", "9112 3", Reject, b"\0GET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    ("byte order mark first", "9112 3", Reject, b"\xef\xbb\xbfGET /case HTTP/1.1\r\nHost: t.test\r\n\r\n"),
    (
        "whitespace-only line after the request line",
        "9112 2.2",
        Reject,
        b"GET /case HTTP/1.1\r\n \r\nHost: t.test\r\n\r\n",
    ),
    ("an obs-fold as the first field", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\n X-A: b\r\nHost: t.test\r\n\r\n"),
    (
        "an obs-fold with tab as the first field",
        "9112 2.2",
        Reject,
        b"GET /case HTTP/1.1\r\n\tX-A: b\r\nHost: t.test\r\n\r\n",
    ),
    ("Host in an obs-fold", "9112 2.2", Reject, b"GET /case HTTP/1.1\r\n Host: t.test\r\n\r\n"),
];

/// Field lines of a GET.
const FIELDS: &[Row] = &[
    ("field", "9112 5", Forward, b"X-A: b\r\n"),
    ("field without space", "9112 5", Forward, b"X-A:b\r\n"),
    ("field empty", "9112 5", Forward, b"X-A:\r\n"),
    ("field of spaces", "9112 5", Forward, b"X-A:     \r\n"),
    ("field with spaces and tabs around", "9112 5", Forward, b"X-A: \t b \t \r\n"),
    ("field with a tab within", "9110 5.5", Forward, b"X-A: b\tc\r\n"),
    ("field with colons", "9112 5", Forward, b"X-A: b: c: d\r\n"),
    ("field with quotes", "9110 5.6.4", Forward, b"X-A: \"b\\\"c\"\r\n"),
    ("field with a quote unclosed", "9110 5.6.4", Forward, b"X-A: \"b\r\n"),
    ("field in Latin-1", "9110 5.5", Either, b"X-A: caf\xe9\r\n"),
    ("field in UTF-8", "9110 5.5", Either, b"X-A: caf\xc3\xa9\r\n"),
    ("field name of all token bytes", "9110 5.6.2", Forward, b"!#$%&'*+-.^_`|~09azAZ: b\r\n"),
    ("field of digits", "9110 5.1", Forward, b"1: b\r\n"),
    ("field twice", "9110 5.3", Forward, b"X-A: b\r\nX-A: c\r\n"),
    ("space before colon", "9112 5.1", Reject, b"X-A : b\r\n"),
    ("tab before colon", "9112 5.1", Reject, b"X-A\t: b\r\n"),
    ("no colon", "9112 5", Reject, b"X-A\r\n"),
    ("no colon, two words", "9112 5", Reject, b"X-A b\r\n"),
    ("no name", "9112 5", Reject, b": b\r\n"),
    ("no name, space", "9112 5", Reject, b" : b\r\n"),
    ("only a colon", "9112 5", Reject, b":\r\n"),
    ("colon first", "9112 5", Reject, b":X-A: b\r\n"),
    ("obs-fold", "9112 5.2", Reject, b"X-A: b\r\n c\r\n"),
    ("fold with tab", "9112 5.2", Reject, b"X-A: b\r\n\tc\r\n"),
    ("obs-fold of an empty field", "9112 5.2", Reject, b"X-A:\r\n b\r\n"),
    ("obs-fold that is empty", "9112 5.2", Reject, b"X-A: b\r\n \r\n"),
    ("obs-fold that looks like a field", "9112 5.2", Reject, b"X-A: b\r\n X-B: c\r\n"),
    ("obs-fold after LF", "9112 5.2", Reject, b"X-A: b\n c\r\n"),
    ("a request as a field", "9112 5", Reject, b"GET /smuggled HTTP/1.1\r\n"),
    ("a request in a value after LF", "9112 2.2", Reject, b"X-A: b\n\nGET /smuggled HTTP/1.1\r\nHost: t.test\r\n"),
    ("a request in a value after CR", "9112 2.2", Reject, b"X-A: b\r\rGET /smuggled HTTP/1.1\r\nHost: t.test\r\n"),
    ("space in a name", "9110 5.1", Reject, b"X A: b\r\n"),
    ("name in brackets", "9110 5.1", Reject, b"[X-A]: b\r\n"),
    ("name with a slash", "9110 5.1", Reject, b"X/A: b\r\n"),
    ("name with a comma", "9110 5.1", Reject, b"X,A: b\r\n"),
    ("name in UTF-8", "9110 5.1", Reject, b"X-\xc3\xa9: b\r\n"),
    ("NUL in a value", "9110 5.5", Reject, b"X-A: b\0c\r\n"),
    ("ESC in a value", "9110 5.5", Reject, b"X-A: b\x1b[31m\r\n"),
    ("DEL in a value", "9110 5.5", Reject, b"X-A: b\x7f\r\n"),
];

pub(crate) fn cases() -> Vec<Case> {
    let whole = REQUESTS.iter().map(|(name, rule, expect, bytes)| case::new(*expect, *name, rule, *bytes));
    let fields = FIELDS.iter().map(|(name, rule, expect, lines)| case::new(*expect, *name, rule, case::get(lines)));
    let mut cases: Vec<Case> = whole.chain(fields).collect();
    let many = [&b"\r\n".repeat(2000)[..], &case::get(b"")].concat();
    cases.push(case::either("2000 empty lines first", "9112 2.2", many));
    for byte in 0..=255_u8 {
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let expect = if token || byte == b':' { Forward } else { Reject };
        let lines = [b"X", &[byte][..], b"A: b\r\n"].concat();
        cases.push(
            case::new(expect, format!("sweep: a byte in a name 0x{byte:02x}"), "9110 5.1", case::get(&lines))
                .in_sweep(),
        );
        let expect = match byte {
            b'\t' | b' '..=b'~' => Forward,
            0x80.. => Either,
            _ => Reject,
        };
        let lines = [b"X-A: b", &[byte][..], b"c\r\n"].concat();
        cases.push(
            case::new(expect, format!("sweep: a byte in a value 0x{byte:02x}"), "9110 5.5", case::get(&lines))
                .in_sweep(),
        );
    }
    cases
}
