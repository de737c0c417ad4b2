//! `Host` (RFC 9112, section 3.2; RFC 3986, section 3.2.2): exactly one, valid, and the same for
//! the router and the upstream.

use crate::case::Expect::{Either, Forward, LocalReply};
use crate::case::{self, Case, Expect};

/// Title, deciding section, expected reaction, field lines.
type Row = (&'static str, &'static str, Expect, &'static [u8]);

/// These are all the field lines of a GET.
const LINES: &[Row] = &[
    ("Host", "9112 3.2", Forward, b"Host: t.test\r\n"),
    ("Host, other case", "9110 5.1", Forward, b"hOSt: t.test\r\n"),
    ("Host, no space", "9112 5", Forward, b"Host:t.test\r\n"),
    ("Host, spaces around", "9112 5", Forward, b"Host: \t t.test \t\r\n"),
    ("Host last", "9112 3.2", Forward, b"X-A: b\r\nHost: t.test\r\n"),
    ("Host with port", "9112 3.2", Forward, b"Host: t.test:8080\r\n"),
    ("Host in upper case", "3986 3.2.2", Forward, b"Host: T.TEST\r\n"),
    ("Host with underscore", "3986 3.2.2", Forward, b"Host: a_b.test\r\n"),
    ("Host IPv4", "3986 3.2.2", Forward, b"Host: 127.0.0.1:80\r\n"),
    ("Host IPv6", "3986 3.2.2", Forward, b"Host: [::1]\r\n"),
    ("Host IPv6 with port", "3986 3.2.2", Forward, b"Host: [2001:db8::1]:8080\r\n"),
    ("Host with trailing dot", "3986 3.2.2", Either, b"Host: t.test.\r\n"),
    ("Host with sub-delims", "3986 3.2.2", Either, b"Host: a!b;c=d.test\r\n"),
    ("Host percent-encoded", "3986 3.2.2", Either, b"Host: a%2fb.test\r\n"),
    ("Host percent-encoded NUL", "3986 3.2.2", Either, b"Host: a%00b.test\r\n"),
    ("Host with an invalid percent-encoding", "3986 2.1", LocalReply, b"Host: a%zz.test\r\n"),
    ("Host of only dots", "3986 3.2.2", Either, b"Host: ..\r\n"),
    ("Host 256.256.256.256", "3986 3.2.2", Either, b"Host: 256.256.256.256\r\n"),
    ("Host with empty port", "3986 3.2.3", Either, b"Host: t.test:\r\n"),
    ("Host with port 00080", "3986 3.2.3", Either, b"Host: t.test:00080\r\n"),
    ("Host IPvFuture", "3986 3.2.2", LocalReply, b"Host: [v1.x]\r\n"),
    ("Host IPv6 zone", "9110 4.2.1", LocalReply, b"Host: [fe80::1%25eth0]\r\n"),
    ("Host missing", "9112 3.2", LocalReply, b"X-A: b\r\n"),
    ("no fields at all", "9112 3.2", LocalReply, b""),
    ("two Host lines, same value", "9112 3.2", LocalReply, b"Host: t.test\r\nHost: t.test\r\n"),
    ("two Host lines, different values", "9112 3.2", LocalReply, b"Host: t.test\r\nHost: other.test\r\n"),
    ("two Host lines, other case", "9112 3.2", LocalReply, b"Host: t.test\r\nhost: other.test\r\n"),
    ("two Host lines, one empty", "9112 3.2", LocalReply, b"Host:\r\nHost: t.test\r\n"),
    ("two Host lines, apart", "9112 3.2", LocalReply, b"Host: t.test\r\nX-A: b\r\nHost: other.test\r\n"),
    ("Host empty", "9110 4.2.1", LocalReply, b"Host:\r\n"),
    ("Host of spaces", "9110 4.2.1", LocalReply, b"Host:   \r\n"),
    ("Host list", "9112 3.2", LocalReply, b"Host: t.test, other.test\r\n"),
    ("Host list, no space", "9112 3.2", LocalReply, b"Host: t.test,other.test\r\n"),
    ("Host with two words", "9112 3.2", LocalReply, b"Host: t.test other.test\r\n"),
    ("Host with tab", "9112 3.2", LocalReply, b"Host: t.test\tother.test\r\n"),
    ("Host with path", "9112 3.2", LocalReply, b"Host: t.test/a\r\n"),
    ("Host with query", "9112 3.2", LocalReply, b"Host: t.test?a\r\n"),
    ("Host with fragment", "9112 3.2", LocalReply, b"Host: t.test#a\r\n"),
    ("Host with userinfo", "9112 3.2", LocalReply, b"Host: user@t.test\r\n"),
    ("Host with scheme", "9112 3.2", LocalReply, b"Host: http://t.test\r\n"),
    ("Host with backslash", "9112 3.2", LocalReply, b"Host: t.test\\other.test\r\n"),
    ("Host in quotes", "9112 3.2", LocalReply, b"Host: \"t.test\"\r\n"),
    ("Host in angle brackets", "9112 3.2", LocalReply, b"Host: <t.test>\r\n"),
    ("Host in UTF-8", "3986 3.2.2", LocalReply, b"Host: caf\xc3\xa9.test\r\n"),
    ("Host with NBSP", "3986 3.2.2", LocalReply, b"Host: t.test\xa0\r\n"),
    ("Host with NUL", "9110 5.5", LocalReply, b"Host: t.test\0.other.test\r\n"),
    ("Host with DEL", "9110 5.5", LocalReply, b"Host: t.test\x7f\r\n"),
    ("Host with port of letters", "3986 3.2.3", LocalReply, b"Host: t.test:http\r\n"),
    ("Host with port -1", "3986 3.2.3", LocalReply, b"Host: t.test:-1\r\n"),
    ("Host with port +80", "3986 3.2.3", LocalReply, b"Host: t.test:+80\r\n"),
    ("Host with port 0x50", "3986 3.2.3", LocalReply, b"Host: t.test:0x50\r\n"),
    ("Host with port 65536", "3986 3.2.3", LocalReply, b"Host: t.test:65536\r\n"),
    ("Host with port 99999999999999999999", "3986 3.2.3", LocalReply, b"Host: t.test:99999999999999999999\r\n"),
    ("Host with two ports", "3986 3.2.3", LocalReply, b"Host: t.test:80:90\r\n"),
    ("Host with a space before the port", "3986 3.2.3", LocalReply, b"Host: t.test: 80\r\n"),
    ("Host with only a port", "9110 4.2.1", LocalReply, b"Host: :80\r\n"),
    ("Host with only a colon", "9110 4.2.1", LocalReply, b"Host: :\r\n"),
    ("Host IPv6 without brackets", "3986 3.2.2", LocalReply, b"Host: ::1\r\n"),
    ("Host IPv6 unclosed", "3986 3.2.2", LocalReply, b"Host: [::1\r\n"),
    ("Host IPv6 unopened", "3986 3.2.2", LocalReply, b"Host: ::1]\r\n"),
    ("Host IPv6 followed by a letter", "3986 3.2.2", LocalReply, b"Host: [::1]a\r\n"),
    ("Host IPv6 invalid", "3986 3.2.2", LocalReply, b"Host: [:::1]\r\n"),
    ("Host IPv6 empty", "3986 3.2.2", LocalReply, b"Host: []\r\n"),
    ("Host name in brackets", "3986 3.2.2", LocalReply, b"Host: [t.test]\r\n"),
    ("Host with space before colon", "9112 5.1", LocalReply, b"Host : t.test\r\n"),
    ("Host in an obs-fold", "9112 5.2", LocalReply, b"Host:\r\n t.test\r\n"),
    ("Host with an obs-fold after the value", "9112 5.2", LocalReply, b"Host: t.test\r\n .other.test\r\n"),
    ("look-alike name instead of Host", "9112 3.2", LocalReply, b"H-ost: t.test\r\n"),
    ("Host and a look-alike name", "bug reports", Either, b"Host: t.test\r\nHo_st: other.test\r\n"),
    ("Host listed in Connection", "9110 7.6.1", Either, b"Host: t.test\r\nConnection: host\r\n"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = LINES
        .iter()
        .map(|(name, rule, expect, lines)| {
            let case = case::new(*expect, *name, rule, [b"GET /case HTTP/1.1\r\n", *lines, b"\r\n"].concat());
            if *expect == LocalReply { case.status(&[400]) } else { case.target("/case") }
        })
        .collect();
    cases.extend([
        case::forward("Host missing in HTTP/1.0", "9112 3.2", *b"GET /case HTTP/1.0\r\n\r\n").target("/case"),
        case::local_reply(
            "two Host lines in HTTP/1.0",
            "9112 3.2",
            *b"GET /case HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        )
        .status(&[400]),
        case::local_reply("invalid Host in HTTP/1.0", "9112 3.2", *b"GET /case HTTP/1.0\r\nHost: a b\r\n\r\n")
            .status(&[400]),
        case::either(
            "Host of 1000 bytes",
            "9110 4.2",
            [b"GET /case HTTP/1.1\r\nHost: ", &vec![b'h'; 1000][..], b"\r\n\r\n"].concat(),
        ),
    ]);
    for byte in 0..=255_u8 {
        let expect = match byte {
            b'-' | b'.' | b'_' => Forward,
            _ if byte.is_ascii_alphanumeric() => Forward,
            b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => Either,
            _ => LocalReply,
        };
        let bytes = [b"GET /case HTTP/1.1\r\nHost: a", &[byte][..], b"b.test\r\n\r\n"].concat();
        cases.push(case::new(expect, format!("sweep: a byte in Host 0x{byte:02x}"), "3986 3.2.2", bytes).in_sweep());
    }
    cases
}
