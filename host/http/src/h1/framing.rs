//! Decides how the end of a message's body is found (RFC 9112, section 6.3).
//!
//! A head must have either one `content-length` of digits or one `transfer-encoding: chunked`,
//! never both. Everything else is rejected, because another parser could find a different end and
//! read a part of one message as the next (request smuggling). This module does not know: other
//! fields.

use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Version};

use crate::error::{Error, Kind};

/// Digits of a content-length: the number fits 64 bits.
const LENGTH_DIGITS_MAX: usize = 18;

/// How the end of a message's body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The message has no body.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body has the chunked transfer coding.
    Chunked,
    /// The body ends when the peer closes the connection. Only a response can have it.
    UntilClose,
}

/// Decides the framing of a request.
pub(super) fn request_framing(headers: &HeaderMap, version: Version) -> Result<Framing, Error> {
    let length = content_length(headers)?;
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(match length {
            None | Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
        });
    }
    if length.is_some() {
        return Err(bad("it has both transfer-encoding and content-length (RFC 9112, section 6.1)"));
    }
    if version == Version::HTTP_10 {
        return Err(bad("HTTP/1.0 has no transfer-encoding"));
    }
    if is_chunked(headers) {
        return Ok(Framing::Chunked);
    }
    if ends_chunked_after_known(headers) {
        return Err(Error::new(Kind::NotImplemented, "transfer codings other than chunked are not implemented"));
    }
    Err(bad("its transfer-encoding is not chunked"))
}

/// Decides the framing of a response. The request's method and the status take precedence over the
/// fields.
pub(super) fn response_framing(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Framing, Error> {
    let coded = headers.contains_key(header::TRANSFER_ENCODING);
    if coded && (version == Version::HTTP_10 || !is_chunked(headers)) {
        return Err(bad("its transfer-encoding is not exactly chunked, or its version is 1.0"));
    }
    let length = content_length(headers)?;
    if coded && length.is_some() {
        return Err(bad("it has both transfer-encoding and content-length"));
    }
    if *method == Method::HEAD || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return Ok(Framing::None);
    }
    Ok(match (coded, length) {
        (true, _) => Framing::Chunked,
        (false, Some(0)) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    })
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = lines.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    first && lines.next().is_none()
}

/// Whether the codings are valid but not supported, for example `gzip, chunked`.
fn ends_chunked_after_known(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (Some(value), None) = (lines.next().and_then(|value| value.to_str().ok()), lines.next()) else { return false };
    let mut codings: Vec<&str> = value.split(',').map(|coding| coding.trim_matches([' ', '\t'])).collect();
    let known = ["gzip", "deflate", "compress", "x-gzip", "x-compress"];
    codings.pop().is_some_and(|last| last.eq_ignore_ascii_case("chunked"))
        && codings.iter().all(|coding| known.iter().any(|known| coding.eq_ignore_ascii_case(known)))
}

/// The value of the only content-length line, which must be digits. A second line is an error even
/// if its value is the same.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(bad("it has more than one content-length"));
    }
    let digits = value.as_bytes();
    if digits.is_empty() || digits.len() > LENGTH_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad("its content-length is not a number"));
    }
    Ok(Some(digits.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'))))
}

fn bad(why: &'static str) -> Error {
    Error::new(Kind::BadRequest, why)
}
