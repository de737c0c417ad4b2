//! Upstream faults as data: what the upstream does after it has read the request, and what the
//! client must receive.

use Expect::{Complete, CompleteOr502, GatewayError, Truncated};
use Fault::{Close, EndBeforeReading, Refuse, Repeat, Reset, SendBytewise, Stall};

/// What the upstream does after it has read the request.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The upstream refuses the connection.
    Refuse,
    /// Closes or resets the connection before it reads anything.
    EndBeforeReading { reset: bool },
    /// Sends these bytes and closes.
    Close(&'static [u8]),
    /// Sends these bytes and resets.
    Reset(&'static [u8]),
    /// Sends these bytes, then sends nothing more.
    Stall(&'static [u8]),
    /// Sends these bytes one at a time, with a pause of this many milliseconds after each.
    SendBytewise(&'static [u8], u64),
    /// Sends the first bytes, then the second bytes this many times.
    Repeat(&'static [u8], &'static [u8], usize),
}

/// What the client must receive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expect {
    /// An error response of the gateway with this status and one of these error types of RFC 9209.
    GatewayError(u16, &'static [&'static str]),
    /// A response whose body has no clean end, or an error if nothing was sent before the fault.
    Truncated,
    /// A complete response with this status and body.
    Complete(u16, &'static str),
    /// `Complete`, or a 502.
    CompleteOr502(u16, &'static str),
}

pub(crate) const CONNECT: &[&str] = &["connection_refused", "destination_unavailable", "destination_ip_unroutable"];
pub(crate) const ENDED: &[&str] = &["connection_terminated", "http_response_incomplete", "http_protocol_error"];
/// The reset may arrive while the gateway is connecting.
pub(crate) const ENDED_OR_REFUSED: &[&str] =
    &["connection_terminated", "http_response_incomplete", "http_protocol_error", "connection_refused"];
pub(crate) const SLOW: &[&str] = &["http_response_timeout", "connection_read_timeout"];
pub(crate) const INVALID: &[&str] = &["http_protocol_error", "http_response_transfer_coding"];
pub(crate) const LARGE: &[&str] =
    &["http_response_header_section_size", "http_response_header_size", "http_protocol_error"];
pub(crate) const UPGRADE: &[&str] = &["http_upgrade_failed", "http_protocol_error"];

/// Title, fault, expected response.
#[rustfmt::skip]
pub(crate) const FAULTS: &[(&str, Fault, Expect)] = &[
    ("refuses the connection", Refuse, GatewayError(502, CONNECT)),
    ("closes at once", EndBeforeReading { reset: false }, GatewayError(502, ENDED_OR_REFUSED)),
    ("resets at once", EndBeforeReading { reset: true }, GatewayError(502, ENDED_OR_REFUSED)),
    ("closes before the header section", Close(b""), GatewayError(502, ENDED)),
    ("resets before the header section", Reset(b""), GatewayError(502, ENDED)),
    ("closes inside the status line", Close(b"HTTP/1.1 20"), GatewayError(502, ENDED)),
    ("closes inside the header section", Close(b"HTTP/1.1 200 OK\r\nContent-Le"), GatewayError(502, ENDED)),
    ("closes before the header section's last line end", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"), GatewayError(502, ENDED)),
    ("resets inside the header section", Reset(b"HTTP/1.1 200 OK\r\nContent-Le"), GatewayError(502, ENDED)),
    ("stalls before the header section", Stall(b""), GatewayError(504, SLOW)),
    ("stalls inside the status line", Stall(b"HTTP/1.1 20"), GatewayError(504, SLOW)),
    ("stalls inside the header section", Stall(b"HTTP/1.1 200 OK\r\nContent-Le"), GatewayError(504, SLOW)),
    ("sends the header section byte by byte, too slowly", SendBytewise(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 100), GatewayError(504, SLOW)),
    ("sends the header section byte by byte", SendBytewise(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 5), Complete(200, "")),
    ("sends the body byte by byte", SendBytewise(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n01234567890123456789", 5), Complete(200, "01234567890123456789")),
    ("sends chunks byte by byte", SendBytewise(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 5), Complete(200, "hello")),
    ("closes inside the body", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"), Truncated),
    ("closes before the body", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), Truncated),
    ("closes a byte before the body's end", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"), Truncated),
    ("resets inside the body", Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"), Truncated),
    ("stalls inside the body", Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"), Truncated),
    ("stalls inside a chunk", Stall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhello"), Truncated),
    ("resets a body that ends with the connection", Reset(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"), Truncated),
    ("sends a body that ends with the connection", Close(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"), Complete(200, "hello")),
    ("Content-Length is not a number", Close(b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Content-Length negative", Close(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Content-Length with plus", Close(b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Content-Length in hex", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Content-Length empty", Close(b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Content-Length with two numbers", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Content-Length above 64 bits", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Content-Length list, different values", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!"), GatewayError(502, INVALID)),
    ("Content-Length twice, different values", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), GatewayError(502, INVALID)),
    ("Content-Length list, same value", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"), CompleteOr502(200, "hello")),
    ("Content-Length twice, same value", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), CompleteOr502(200, "hello")),
    ("Content-Length and chunked", Close(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), CompleteOr502(200, "hello")),
    ("Transfer-Encoding unknown", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Transfer-Encoding gzip", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("Transfer-Encoding gzip, chunked", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), GatewayError(502, INVALID)),
    ("Transfer-Encoding chunked, gzip", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), GatewayError(502, INVALID)),
    ("Transfer-Encoding chunked twice", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), GatewayError(502, INVALID)),
    ("Transfer-Encoding chunked on two lines", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), GatewayError(502, INVALID)),
    ("Transfer-Encoding with NBSP", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \xa0chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), GatewayError(502, INVALID)),
    ("Transfer-Encoding in HTTP/1.0", Close(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), GatewayError(502, INVALID)),
    ("chunk size is not a number", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n"), Truncated),
    ("second chunk size invalid", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n\r\n"), Truncated),
    ("chunk size negative", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"), Truncated),
    ("chunk size 0x5", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"), Truncated),
    ("chunk size above 64 bits", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"), Truncated),
    ("chunk without its line end", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n"), Truncated),
    ("chunk longer than its size", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"), Truncated),
    ("chunked body with lines that end with LF", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n"), Truncated),
    ("chunk with an endless size line", Repeat(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"aaaaaaaaaaaaaaaa", 20_000), Truncated),
    ("closes inside a chunk", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), Truncated),
    ("closes before the last chunk", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Truncated),
    ("closes before the last empty line", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"), Truncated),
    ("resets before the last chunk", Reset(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Truncated),
    ("chunk extensions", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n"), Complete(200, "hello")),
    ("trailers", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"), Complete(200, "hello")),
    ("endless trailers", Repeat(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"X-A: bbbbbbbbbb\r\n", 20_000), Truncated),
    ("HTTP/0.9", Close(b"<html>hello</html>\n"), GatewayError(502, INVALID)),
    ("garbage", Close(b"\x00\x01\x02\x03garbage\r\n\r\n"), GatewayError(502, INVALID)),
    ("TLS alert", Close(b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n"), GatewayError(502, INVALID)),
    ("HTTP/2 preface", Close(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\r\n\r\n"), GatewayError(502, INVALID)),
    ("status 99", Close(b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status 099", Close(b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status 1000", Close(b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status 2000", Close(b"HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status abc", Close(b"HTTP/1.1 abc X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status 0", Close(b"HTTP/1.1 0 X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status 000", Close(b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status 999", Close(b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status -20", Close(b"HTTP/1.1 -20 X\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("status missing", Close(b"HTTP/1.1 \r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("reason phrase missing", Close(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), Complete(200, "")),
    ("reason phrase with CR", Close(b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("reason phrase with NUL", Close(b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("version 2.0", Close(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("version 0.9", Close(b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("version in lower case", Close(b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("version ICY", Close(b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n"), GatewayError(502, INVALID)),
    ("version 1.0", Close(b"HTTP/1.0 200 OK\r\n\r\nhello"), Complete(200, "hello")),
    ("101 without a request for it", Stall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"), GatewayError(502, UPGRADE)),
    ("101 without Upgrade, then a response", Close(b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, UPGRADE)),
    ("100 without a request for it", Close(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Complete(200, "hello")),
    ("102 five times", Close(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Complete(200, "hello")),
    ("100 endlessly", Repeat(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 20_000), GatewayError(502, INVALID)),
    ("103 endlessly", Repeat(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", 20_000), GatewayError(502, INVALID)),
    ("only 100", Close(b"HTTP/1.1 100 Continue\r\n\r\n"), GatewayError(502, ENDED)),
    ("100, then a stall", Stall(b"HTTP/1.1 100 Continue\r\n\r\n"), GatewayError(504, SLOW)),
    ("field with NUL", Close(b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("field with CR", Close(b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("field with ESC", Close(b"HTTP/1.1 200 OK\r\nX-A: \x1b[1m\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("field name with a space", Close(b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("field name with NUL", Close(b"HTTP/1.1 200 OK\r\nX\0A: b\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("field without name", Close(b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("field without colon", Close(b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("field with space before colon", Close(b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 5\r\n\r\nhello"), CompleteOr502(200, "hello")),
    ("Transfer-Encoding with space before colon", Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), CompleteOr502(200, "hello")),
    ("field with obs-fold", Close(b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello"), CompleteOr502(200, "hello")),
    ("obs-fold before the first field", Close(b"HTTP/1.1 200 OK\r\n X-A: b\r\nContent-Length: 5\r\n\r\nhello"), GatewayError(502, INVALID)),
    ("lines that end with LF", Close(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"), CompleteOr502(200, "hello")),
    ("field value of 1 MB", Repeat(b"HTTP/1.1 200 OK\r\nX-A: ", b"bbbbbbbbbbbbbbbbbbbb", 50_000), GatewayError(502, LARGE)),
    ("50,000 fields", Repeat(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 50_000), GatewayError(502, LARGE)),
    ("reason phrase of 1 MB", Repeat(b"HTTP/1.1 200 ", b"OK OK OK OK OK OK OK", 50_000), GatewayError(502, LARGE)),
];
