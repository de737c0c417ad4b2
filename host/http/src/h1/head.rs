//! Parses the heads of requests and responses into checked values.
//!
//! Lines must end with CRLF, names must be tokens directly before their colon, and folded lines are
//! rejected (RFC 9112, sections 2.2 and 5). The framing is decided here, because all fields are
//! still as they arrived. This module does not know: the meaning of fields other than framing, host
//! and connection.

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, StatusCode, Version};
use memchr::memchr;

use super::framing::{Framing, request_framing, response_framing};
use crate::error::{Error, Kind};
use crate::semantics::fields::{drop_forbidden_trailers, has_member, is_continue, resembles_framing_field};
use crate::semantics::path;

/// Empty lines before a request that are skipped (RFC 9112, section 2.2).
const EMPTY_LINES_MAX: u8 = 4;

/// The first byte of a TLS handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Bounds on a head.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the whole head.
    pub head_bytes: usize,
    /// Bytes of the first line, which has the request target. RFC 9112, section 3 recommends at
    /// least 8000.
    pub target_bytes: usize,
    /// Number of header lines.
    pub fields: usize,
}

/// Finds the end of a head that arrives in pieces, and looks at each byte once.
#[derive(Debug, Default)]
pub struct HeadScanner {
    at: usize,
    lines: usize,
    skipped: u8,
}

impl HeadScanner {
    /// Returns the length of the head at the start of `buffer`, its empty line included, or none if
    /// the head is incomplete. Bytes that no head can have are an error as soon as they arrive.
    pub fn find(&mut self, buffer: &mut BytesMut, limits: &Limits) -> Result<Option<usize>, Error> {
        while self.at == 0 && buffer.first() == Some(&b'\r') {
            match buffer.get(1) {
                None => return Ok(None),
                Some(b'\n') if self.skipped < EMPTY_LINES_MAX => {
                    buffer.advance(2);
                    self.skipped += 1;
                }
                Some(_) => return Err(bad("it begins with a bare CR or too many empty lines")),
            }
        }
        match buffer.first() {
            Some(&TLS_HANDSHAKE) if self.at == 0 => return Err(bad("it is a TLS handshake, but this port has no TLS")),
            Some(first) if self.at == 0 && !first.is_ascii_graphic() && *first != b'\n' => {
                return Err(bad("its first byte is not the beginning of a method"));
            }
            _ => {}
        }
        loop {
            let Some(end) = memchr(b'\n', &buffer[self.at..]).map(|offset| self.at + offset) else {
                return self.within(buffer.len(), limits).map(|()| None);
            };
            let Some(line) = buffer[self.at..end].strip_suffix(b"\r") else {
                return Err(bad("a line of its head ends with a bare LF"));
            };
            let is_empty = line.is_empty();
            self.at = end + 1;
            self.within(self.at, limits)?;
            if is_empty && self.lines > 0 {
                return Ok(Some(self.at));
            }
            self.lines += 1;
            if self.lines > limits.fields + 1 {
                return Err(Error::new(Kind::HeadTooLarge, format!("more than {} header lines", limits.fields)));
            }
        }
    }

    fn within(&self, length: usize, limits: &Limits) -> Result<(), Error> {
        if self.lines == 0 && length > limits.target_bytes {
            return Err(Error::new(
                Kind::UriTooLong,
                format!("a request line of more than {} bytes", limits.target_bytes),
            ));
        }
        if length > limits.head_bytes {
            return Err(Error::new(Kind::HeadTooLarge, format!("a head of more than {} bytes", limits.head_bytes)));
        }
        Ok(())
    }
}

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    /// The method as sent.
    pub method: Method,
    /// The target in origin form, absolute form or `*`.
    pub uri: Uri,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The fields as sent, framing fields included.
    pub headers: HeaderMap,
    /// How the end of the body is found.
    pub framing: Framing,
    /// Whether the client wants to send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl RequestHead {
    /// The protocol that the client asks to change to (RFC 9110, section 7.8). None if the request
    /// has a body, which would precede the new protocol. Never `h2c`, which would hide requests
    /// from the gateway.
    pub fn upgrade(&self) -> Option<HeaderValue> {
        if !self.headers.contains_key(header::UPGRADE)
            || self.framing != Framing::None
            || self.version != Version::HTTP_11
        {
            return None;
        }
        let mut protocols = self.headers.get_all(header::UPGRADE).iter();
        let protocol = protocols.next().filter(|_| protocols.next().is_none())?;
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-./_+".contains(byte);
        let named = !protocol.is_empty() && protocol.as_bytes().iter().all(plain);
        let asked = has_member(&self.headers, header::CONNECTION, "upgrade");
        (asked && named && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
    }
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status, 100 to 599.
    pub status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The fields as sent, framing fields included.
    pub headers: HeaderMap,
}

impl ResponseHead {
    /// Decides how the end of the body is found. `method` is the method of the request.
    pub fn framing(&self, method: &Method) -> Result<Framing, Error> {
        response_framing(self.status, self.version, &self.headers, method)
    }
}

/// Parses a complete request head, as [`HeadScanner::find`] measured it.
pub fn parse_request(head: Bytes) -> Result<RequestHead, Error> {
    let (line, rest) = first_line(&head)?;
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("its request line is not METHOD TARGET VERSION with single spaces"));
    };
    let method = Method::from_bytes(method).map_err(|_| bad("its method is not a token"))?;
    let version = read_version(version)?;
    let offset = target.as_ptr() as usize - head.as_ptr() as usize;
    let uri = read_target(&method, head.slice(offset..offset + target.len()))?;
    let mut headers = fields(&head, rest, Blank::Rejected)?;
    let framing = request_framing(&headers, version)?;
    let keep_alive = is_persistent(&headers, version);
    let expects_continue = match headers.get(header::EXPECT) {
        None => false,
        // A client of HTTP/1.0 knows no interim responses (RFC 9110, section 10.1.1).
        Some(value) if is_continue(value) && version == Version::HTTP_10 => {
            headers.remove(header::EXPECT);
            false
        }
        Some(value) if is_continue(value) => framing != Framing::None,
        Some(_) => return Err(Error::new(Kind::ExpectationFailed, "an expectation other than 100-continue")),
    };
    Ok(RequestHead { method, uri, version, headers, framing, keep_alive, expects_continue })
}

/// Parses a complete response head, as [`HeadScanner::find`] measured it.
pub fn parse_response(head: Bytes) -> Result<ResponseHead, Error> {
    let (line, rest) = first_line(&head)?;
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::HTTP_11,
        Some(b"HTTP/1.0 ") => Version::HTTP_10,
        _ => return Err(bad("its status line does not begin with HTTP/1.1 or HTTP/1.0")),
    };
    let status = line.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
    let status = status.filter(|status| status.as_u16() < 600).ok_or_else(|| bad("its status is not 100 to 599"))?;
    let reason = &line[12..];
    if !(reason.is_empty() || reason[0] == b' ') || reason.iter().any(|byte| *byte != b'\t' && byte.is_ascii_control())
    {
        return Err(bad("its reason phrase has a control character"));
    }
    Ok(ResponseHead { status, version, headers: fields(&head, rest, Blank::Removed)? })
}

/// Whether a rejected head was meant to be HTTP/1. If its first line is three words and none of
/// them looks like a version or a path, for example in a broken HTTP/2 preface, the sender would
/// not understand a response.
pub fn looks_like_http(head: &[u8]) -> bool {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty()).unwrap_or_default();
    let is_path_or_version =
        |word: &[u8]| word.contains(&b'/') || word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"http"));
    line.split(|byte| *byte == b' ').count() != 3 || line.split(|byte| *byte == b' ').any(is_path_or_version)
}

/// Parses the trailers after a last chunk. Fields of framing, routing and authentication are
/// dropped (RFC 9110, section 6.5.1).
pub fn parse_trailers(block: &Bytes) -> Result<HeaderMap, Error> {
    let mut fields = fields(block, 0, Blank::Rejected)?;
    drop_forbidden_trailers(&mut fields);
    Ok(fields)
}

/// Whether the peer wants to keep the connection open (RFC 9112, section 9.3).
pub fn is_persistent(headers: &HeaderMap, version: Version) -> bool {
    let says = |option| has_member(headers, header::CONNECTION, option);
    if !headers.contains_key(header::CONNECTION) {
        return version == Version::HTTP_11;
    }
    !says("close") && (version == Version::HTTP_11 || says("keep-alive"))
}

/// The first line without its CRLF, and the offset of the next line.
fn first_line(head: &[u8]) -> Result<(&[u8], usize), Error> {
    let end = memchr(b'\n', head).filter(|end| *end > 0).ok_or_else(|| bad("it has no first line"))?;
    Ok((&head[..end - 1], end + 1))
}

/// What happens to white space between a field's name and its colon. A request with it is rejected,
/// a response loses it (RFC 9112, section 5.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blank {
    Rejected,
    Removed,
}

/// Parses the header lines from `at` to the empty line.
fn fields(head: &Bytes, mut at: usize, blank: Blank) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(24);
    loop {
        let rest = &head[at..];
        let end = memchr(b'\n', rest).ok_or_else(|| bad("its header lines end early"))?;
        let line = &rest[..end.saturating_sub(1)];
        if line.is_empty() {
            return Ok(headers);
        }
        let colon = memchr(b':', line).ok_or_else(|| bad("a header line has no colon"))?;
        let name = &line[..colon];
        let name = if blank == Blank::Removed { trim_end(name) } else { name };
        // This rejects a space before the colon, a folded line and an empty name.
        let name = HeaderName::from_bytes(name).map_err(|_| bad("a header name is not a token"))?;
        let value = &line[colon + 1..];
        let start = value.iter().take_while(|byte| is_blank(**byte)).count();
        let stop = value.len() - value[start..].iter().rev().take_while(|byte| is_blank(**byte)).count();
        let offset = at + colon + 1;
        let value = HeaderValue::from_maybe_shared(head.slice(offset + start..offset + stop))
            .map_err(|_| bad("a header value has a control character"))?;
        if resembles_framing_field(name.as_str()) {
            return Err(bad("a header name resembles a framing field"));
        }
        headers.append(name, value);
        at += end + 1;
    }
}

/// The text without the white space at its end.
fn trim_end(text: &[u8]) -> &[u8] {
    &text[..text.len() - text.iter().rev().take_while(|byte| is_blank(**byte)).count()]
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn read_version(text: &[u8]) -> Result<Version, Error> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        // A higher minor version is treated as 1.1 (RFC 9110, section 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(Version::HTTP_11),
        [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Error::new(Kind::Version, "a major version of HTTP other than 1"))
        }
        _ => Err(bad("its version is not HTTP/1.1")),
    }
}

/// Parses a request target (RFC 9112, section 3.2).
fn read_target(method: &Method, target: Bytes) -> Result<Uri, Error> {
    let plain = |byte: &u8| (0x21..0x7f).contains(byte) && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'`');
    let invalid = || bad("its target is empty or has a character that must be encoded");
    let target = if target.iter().all(plain) {
        target
    } else {
        let encoded = path::encode(&target).filter(|text| text.starts_with('/') && text.as_bytes().iter().all(plain));
        encoded.ok_or_else(invalid)?.into()
    };
    if target.is_empty() {
        return Err(invalid());
    }
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Error::new(Kind::MethodNotAllowed, "CONNECT and TRACE are not served"));
    }
    if target[0] == b'/' {
        let path = PathAndQuery::from_maybe_shared(target).map_err(|_| bad("its path is not valid"))?;
        return Ok(path.into());
    }
    if &target[..] == b"*" {
        return if *method == Method::OPTIONS {
            Ok(PathAndQuery::from_static("*").into())
        } else {
            Err(bad("only OPTIONS has the target *"))
        };
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| bad("its target is not valid"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(bad("its target is neither a path nor an http URI")),
    }
}

fn bad(why: &'static str) -> Error {
    Error::new(Kind::BadRequest, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head_bytes: 65536, target_bytes: 9000, fields: 100 };

    fn read(text: &str) -> Result<RequestHead, Kind> {
        let mut buffer = BytesMut::from(text.as_bytes());
        match HeadScanner::default().find(&mut buffer, &LIMITS) {
            Ok(Some(length)) => parse_request(buffer.split_to(length).freeze()).map_err(|error| error.kind),
            Ok(None) => panic!("{text:?} is incomplete"),
            Err(error) => Err(error.kind),
        }
    }

    #[test]
    fn non_http_is_recognized() {
        assert!(!looks_like_http(b"INVALID CONNECTION PREFACE\r\n\r\n"));
        for http in [
            "GET / HTTP/1.1\r\n",
            "GET / HTTP1.1\r\n",
            "HTTP/1.1 200 OK\r\n",
            "GET /\r\n",
            "GET / http/1.1\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET / HTTP/1.1 x\r\n",
        ] {
            assert!(looks_like_http(http.as_bytes()), "{http:?}");
        }
    }

    #[test]
    fn a_valid_request_is_parsed() -> Result<(), Kind> {
        let head = read("\r\nPOST /a?b=c HTTP/1.1\r\nHost: x\r\nX-A: \t 1 2\t\r\ncontent-length: 12\r\n\r\n")?;
        assert_eq!((head.method, head.uri.to_string().as_str()), (Method::POST, "/a?b=c"));
        assert_eq!((head.framing, head.keep_alive), (Framing::Length(12), true));
        assert_eq!(head.headers["x-a"], "1 2");
        assert_eq!(read("GET http://h:1/p HTTP/1.0\r\n\r\n")?.uri.authority().map(|a| a.as_str()), Some("h:1"));
        Ok(())
    }

    #[test]
    fn a_head_in_pieces_is_found() -> Result<(), Error> {
        let mut scan = HeadScanner::default();
        let mut buffer = BytesMut::new();
        let text = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nrest";
        for (at, byte) in text.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            if let Some(length) = scan.find(&mut buffer, &LIMITS)? {
                assert_eq!((at, length), (26, 27));
                return Ok(());
            }
        }
        panic!("the head was never complete");
    }

    #[test]
    fn an_ambiguous_head_is_rejected() {
        for (text, kind) in [
            ("GET / HTTP/1.1\nhost: a\n\n", Kind::BadRequest),
            ("GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n", Kind::BadRequest),
            ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", Kind::BadRequest),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", Kind::BadRequest),
            ("GET / HTTP/1.1\r\na\r\n\r\n", Kind::BadRequest),
            ("GET / HTTP/1.1\r\na: \0\r\n\r\n", Kind::BadRequest),
            ("GET / HTTP/1.1\r\na: b\rc\r\n\r\n", Kind::BadRequest),
            ("GET  / HTTP/1.1\r\n\r\n", Kind::BadRequest),
            ("GET /\r\n\r\n", Kind::BadRequest),
            ("GET /a#b HTTP/1.1\r\n\r\n", Kind::BadRequest),
            ("GET * HTTP/1.1\r\n\r\n", Kind::BadRequest),
            ("GET / HTTP/2.0\r\n\r\n", Kind::Version),
            ("CONNECT a:1 HTTP/1.1\r\n\r\n", Kind::MethodNotAllowed),
            ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ncontent-length: 9999999999999999999\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ncontent_length: 1\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked, chunked\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ntransfer-encoding: ,chunked\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ntransfer-encoding: identity, chunked\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Kind::NotImplemented),
            ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Kind::BadRequest),
            ("POST / HTTP/1.1\r\nexpect: tea\r\ncontent-length: 1\r\n\r\n", Kind::ExpectationFailed),
        ] {
            assert_eq!(read(text).err(), Some(kind), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_http_is_refused_at_its_first_byte() {
        for (first, why) in [(b'\x16', "a TLS handshake"), (b'\x80', "first byte"), (b' ', "first byte")] {
            let mut buffer = BytesMut::from(&[first][..]);
            let error = HeadScanner::default().find(&mut buffer, &LIMITS).err();
            assert!(error.is_some_and(|error| error.to_string().contains(why)), "{first}");
        }
    }

    #[test]
    fn characters_that_clients_send_as_they_are_get_encoded() -> Result<(), Kind> {
        let head = read("GET /caf\u{e9}/<a>`?q=\"b\"&n=\u{fc} HTTP/1.1\r\nhost: a\r\n\r\n")?;
        assert_eq!(head.uri.to_string(), "/caf%C3%A9/%3Ca%3E%60?q=%22b%22&n=%C3%BC");
        assert_eq!(read("GET http://h\u{e9}/ HTTP/1.1\r\nhost: a\r\n\r\n").err(), Some(Kind::BadRequest));
        assert_eq!(read("GET /a\u{7f} HTTP/1.1\r\nhost: a\r\n\r\n").err(), Some(Kind::BadRequest));
        Ok(())
    }

    #[test]
    fn limits_have_their_own_kinds() {
        assert_eq!(read(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000))).err(), Some(Kind::UriTooLong));
        assert_eq!(read(&format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(8000))).err(), None);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(read(&many).err(), Some(Kind::HeadTooLarge));
    }

    #[test]
    fn the_framing_of_a_response_follows_its_status_and_fields() -> Result<(), Error> {
        let framing = |text: &str, method: &Method| {
            parse_response(Bytes::copy_from_slice(text.as_bytes())).and_then(|head| head.framing(method))
        };
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", &Method::GET)?, Framing::UntilClose);
        assert_eq!(framing("HTTP/1.1 200\r\ncontent-length: 3\r\n\r\n", &Method::GET)?, Framing::Length(3));
        assert_eq!(framing("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", &Method::HEAD)?, Framing::None);
        assert_eq!(framing("HTTP/1.1 304 X\r\ncontent-length: 3\r\n\r\n", &Method::GET)?, Framing::None);
        for wrong in [
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 600 X\r\n\r\n",
            "HTTP/1.1 20 X\r\n\r\n",
            "HTTP/2.0 200 X\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        ] {
            assert!(framing(wrong, &Method::GET).is_err(), "{wrong:?}");
        }
        Ok(())
    }

    #[test]
    fn a_response_loses_white_space_before_a_colon_and_a_request_is_rejected() -> Result<(), Error> {
        let head = parse_response(Bytes::from_static(b"HTTP/1.1 200 OK\r\nX-A : 1\r\nX-B\t :2\r\n\r\n"))?;
        assert_eq!(
            (&head.headers["x-a"], &head.headers["x-b"]),
            (&HeaderValue::from_static("1"), &HeaderValue::from_static("2"))
        );
        assert!(parse_response(Bytes::from_static(b"HTTP/1.1 200 OK\r\n : 1\r\n\r\n")).is_err(), "no name");
        assert!(parse_response(Bytes::from_static(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n X-B : 1\r\n\r\n")).is_err());
        assert_eq!(read("GET / HTTP/1.1\r\nhost: a\r\nX-A : 1\r\n\r\n").err(), Some(Kind::BadRequest));
        Ok(())
    }
}
