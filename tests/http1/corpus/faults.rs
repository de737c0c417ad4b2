//! Faults of an upstream as data: what it does once it has the request, and what the client must see.

use Act::{Close, Drip, Early, Flood, Refuse, Reset, Stall};
use Want::{Broken, Error, Lenient, Whole};

/// What the upstream does once it has the request.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// Nobody listens.
    Refuse,
    /// Ends the connection, by a reset if so, before it read anything.
    Early { reset: bool },
    /// Sends this and closes.
    Close(&'static [u8]),
    /// Sends this and resets.
    Reset(&'static [u8]),
    /// Sends this and says no more.
    Stall(&'static [u8]),
    /// Sends this, one byte at a time with a pause of so many milliseconds.
    Drip(&'static [u8], u64),
    /// Sends the first, and the second so many times.
    Flood(&'static [u8], &'static [u8], usize),
}

/// What the client must see.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    /// This status by the gateway, with one of these error types of RFC 9209.
    Error(u16, &'static [&'static str]),
    /// A head, and a body that never ends cleanly; an error if nothing was sent yet.
    Broken,
    /// This status and body.
    Whole(u16, &'static str),
    /// Either `Whole` or an error 502.
    Lenient(u16, &'static str),
}

pub(crate) const CONNECT: &[&str] = &["connection_refused", "destination_unavailable", "destination_ip_unroutable"];
pub(crate) const ENDED: &[&str] = &["connection_terminated", "http_response_incomplete", "http_protocol_error"];
/// The reset may come while the gateway still connects.
pub(crate) const ENDED_OR_REFUSED: &[&str] =
    &["connection_terminated", "http_response_incomplete", "http_protocol_error", "connection_refused"];
pub(crate) const SLOW: &[&str] = &["http_response_timeout", "connection_read_timeout"];
pub(crate) const INVALID: &[&str] = &["http_protocol_error", "http_response_transfer_coding"];
pub(crate) const LARGE: &[&str] =
    &["http_response_header_section_size", "http_response_header_size", "http_protocol_error"];
pub(crate) const UPGRADE: &[&str] = &["http_upgrade_failed", "http_protocol_error"];

#[rustfmt::skip]
pub(crate) const FAULTS: &[(&str, Act, Want)] = &[
    ("refuses", Refuse, Error(502, CONNECT)),
    ("closes at once", Early { reset: false }, Error(502, ENDED_OR_REFUSED)),
    ("resets at once", Early { reset: true }, Error(502, ENDED_OR_REFUSED)),
    ("closes before the head", Close(b""), Error(502, ENDED)),
    ("resets before the head", Reset(b""), Error(502, ENDED)),
    ("closes within the status line", Close(b"HTTP/1.1 20"), Error(502, ENDED)),
    ("closes within the head", Close(b"HTTP/1.1 200 OK\r\nContent-Le"), Error(502, ENDED)),
    ("closes before the head's last line end", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"), Error(502, ENDED)),
    ("resets within the head", Reset(b"HTTP/1.1 200 OK\r\nContent-Le"), Error(502, ENDED)),
    ("stalls before the head", Stall(b""), Error(504, SLOW)),
    ("stalls within the status line", Stall(b"HTTP/1.1 20"), Error(504, SLOW)),
    ("stalls within the head", Stall(b"HTTP/1.1 200 OK\r\nContent-Le"), Error(504, SLOW)),
    ("drips a head for too long", Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 100), Error(504, SLOW)),
    ("drips the head", Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 5), Whole(200, "")),
    ("drips the body", Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n01234567890123456789", 5), Whole(200, "01234567890123456789")),
    ("drips chunks", Drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 5), Whole(200, "hello")),
    ("closes within the body", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"), Broken),
    ("closes before the body", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), Broken),
    ("closes a byte before the body's end", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"), Broken),
    ("resets within the body", Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"), Broken),
    ("stalls within the body", Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"), Broken),
    ("stalls within a chunk", Stall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhello"), Broken),
    ("resets a body that ends with the connection", Reset(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"), Broken),
    ("sends a body that ends with the connection", Close(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"), Whole(200, "hello")),
    ("length of letters", Close(b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nhello"), Error(502, INVALID)),
    ("length negative", Close(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"), Error(502, INVALID)),
    ("length with plus", Close(b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"), Error(502, INVALID)),
    ("length in hex", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello"), Error(502, INVALID)),
    ("length empty", Close(b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello"), Error(502, INVALID)),
    ("length of two words", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\nhello"), Error(502, INVALID)),
    ("length above 64 bits", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello"), Error(502, INVALID)),
    ("length list, differing", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!"), Error(502, INVALID)),
    ("length twice, differing", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), Error(502, INVALID)),
    ("length list, same", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"), Lenient(200, "hello")),
    ("length twice, same", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), Lenient(200, "hello")),
    ("length and chunked", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Lenient(200, "hello")),
    ("coding unknown", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nhello"), Error(502, INVALID)),
    ("coding gzip", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello"), Error(502, INVALID)),
    ("coding gzip, chunked", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Error(502, INVALID)),
    ("coding chunked, gzip", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Error(502, INVALID)),
    ("coding chunked twice", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Error(502, INVALID)),
    ("coding chunked on two lines", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Error(502, INVALID)),
    ("coding with NBSP", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \xa0chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Error(502, INVALID)),
    ("coding in HTTP/1.0", Close(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Error(502, INVALID)),
    ("chunk size of letters", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n"), Broken),
    ("second chunk size bad", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n\r\n"), Broken),
    ("chunk size negative", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"), Broken),
    ("chunk size 0x5", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"), Broken),
    ("chunk size above 64 bits", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"), Broken),
    ("chunk without its line end", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n"), Broken),
    ("chunk longer than its size", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"), Broken),
    ("chunk with line ends LF", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n"), Broken),
    ("chunk with an endless size line", Flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"aaaaaaaaaaaaaaaa", 20_000), Broken),
    ("closes within a chunk", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), Broken),
    ("closes before the last chunk", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Broken),
    ("closes before the last empty line", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"), Broken),
    ("resets before the last chunk", Reset(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Broken),
    ("chunk extensions", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n"), Whole(200, "hello")),
    ("trailers", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"), Whole(200, "hello")),
    ("trailers endless", Flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"X-A: bbbbbbbbbb\r\n", 20_000), Broken),
    ("HTTP/0.9", Close(b"<html>hello</html>\n"), Error(502, INVALID)),
    ("garbage", Close(b"\x00\x01\x02\x03garbage\r\n\r\n"), Error(502, INVALID)),
    ("TLS alert", Close(b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n"), Error(502, INVALID)),
    ("HTTP/2 preface", Close(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\r\n\r\n"), Error(502, INVALID)),
    ("status 99", Close(b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status 099", Close(b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status 1000", Close(b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status 2000", Close(b"HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status abc", Close(b"HTTP/1.1 abc X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status 0", Close(b"HTTP/1.1 0 X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status 000", Close(b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status 999", Close(b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status -20", Close(b"HTTP/1.1 -20 X\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("status missing", Close(b"HTTP/1.1 \r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("reason missing", Close(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), Whole(200, "")),
    ("reason with CR", Close(b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("reason with NUL", Close(b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("version 2.0", Close(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("version 0.9", Close(b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("version in lower case", Close(b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("version ICY", Close(b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n"), Error(502, INVALID)),
    ("version 1.0", Close(b"HTTP/1.0 200 OK\r\n\r\nhello"), Whole(200, "hello")),
    ("101 nobody asked for", Stall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"), Error(502, UPGRADE)),
    ("101 and an answer", Close(b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Error(502, UPGRADE)),
    ("100 nobody asked for", Close(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Whole(200, "hello")),
    ("102 five times", Close(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Whole(200, "hello")),
    ("100 without end", Flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 20_000), Error(502, INVALID)),
    ("103 without end", Flood(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", 20_000), Error(502, INVALID)),
    ("only 100", Close(b"HTTP/1.1 100 Continue\r\n\r\n"), Error(502, ENDED)),
    ("100 and a stall", Stall(b"HTTP/1.1 100 Continue\r\n\r\n"), Error(504, SLOW)),
    ("field with NUL", Close(b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 5\r\n\r\nhello"), Error(502, INVALID)),
    ("field with CR", Close(b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 5\r\n\r\nhello"), Error(502, INVALID)),
    ("field with ESC", Close(b"HTTP/1.1 200 OK\r\nX-A: \x1b[1m\r\nContent-Length: 5\r\n\r\nhello"), Error(502, INVALID)),
    ("field name with a space", Close(b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 5\r\n\r\nhello"), Error(502, INVALID)),
    ("field name with NUL", Close(b"HTTP/1.1 200 OK\r\nX\0A: b\r\nContent-Length: 5\r\n\r\nhello"), Error(502, INVALID)),
    ("field without name", Close(b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 5\r\n\r\nhello"), Error(502, INVALID)),
    ("field without colon", Close(b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 5\r\n\r\nhello"), Error(502, INVALID)),
    ("field with space before colon", Close(b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 5\r\n\r\nhello"), Lenient(200, "hello")),
    ("coding with space before colon", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Lenient(200, "hello")),
    ("field folded", Close(b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello"), Lenient(200, "hello")),
    ("fold first", Close(b"HTTP/1.1 200 OK\r\n X-A: b\r\nContent-Length: 5\r\n\r\nhello"), Error(502, INVALID)),
    ("line ends LF", Close(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"), Lenient(200, "hello")),
    ("field of 1 MB", Flood(b"HTTP/1.1 200 OK\r\nX-A: ", b"bbbbbbbbbbbbbbbbbbbb", 50_000), Error(502, LARGE)),
    ("50,000 fields", Flood(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 50_000), Error(502, LARGE)),
    ("reason of 1 MB", Flood(b"HTTP/1.1 200 ", b"OK OK OK OK OK OK OK", 50_000), Error(502, LARGE)),
];
