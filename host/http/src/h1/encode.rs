//! Writes heads and chunks as bytes.
//!
//! Names and values were checked when they were read or set: a `HeaderName` is a token, and a
//! `HeaderValue` has no line end. Framing fields are written only from [`Framing`], never copied
//! from a message. This module does not know: what other fields mean.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

use bytes::{BufMut as _, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};

use super::framing::Framing;

/// Writes a request's head without its last line. `target` is a path with its query, or `*`.
pub fn request(out: &mut BytesMut, method: &Method, target: &str, headers: &HeaderMap, framing: Framing) {
    out.reserve(256 + target.len() + headers.len() * 48);
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    fields(out, headers, Some(framing));
}

/// Writes a response's head without its last line. Without `framing`, the `content-length` of
/// `headers` is kept: it is the length that the response to a GET would have (RFC 9110, section
/// 8.6).
pub fn response(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap, framing: Option<Framing>) {
    out.reserve(256 + headers.len() * 48);
    if status == StatusCode::OK {
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        out.put_slice(b"\r\n");
    }
    fields(out, headers, framing);
}

/// Writes one more field, before [`end`].
pub fn field(out: &mut BytesMut, name: &str, value: &str) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// Writes the empty line that ends a head.
pub fn end(out: &mut BytesMut) {
    out.put_slice(b"\r\n");
}

fn fields(out: &mut BytesMut, headers: &HeaderMap, framing: Option<Framing>) {
    for (name, value) in headers {
        if framing.is_some() && *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING {
            continue;
        }
        out.reserve(name.as_str().len() + value.len() + 4);
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    match framing {
        Some(Framing::Length(length)) => field(out, "content-length", itoa::Buffer::new().format(length)),
        Some(Framing::Chunked) => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Some(Framing::None | Framing::UntilClose) | None => {}
    }
}

/// Writes a chunk's size line. The data and [`CHUNK_END`] follow.
pub fn chunk_start(out: &mut BytesMut, length: usize) {
    out.put_slice(format!("{length:x}\r\n").as_bytes());
}

/// The bytes after a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Writes the last chunk with its trailers.
pub fn last_chunk(out: &mut BytesMut, trailers: &HeaderMap) {
    out.put_slice(b"0\r\n");
    fields(out, trailers, None);
    end(out);
}

/// Writes a `Date` field (RFC 9110, section 6.6.1). Each thread formats the date at most twice a
/// second, since formatting costs more than copying; the price is a date that is up to half a
/// second old.
pub fn date(out: &mut BytesMut) {
    thread_local! {
        static CACHED: Cell<Option<(Instant, [u8; 29])>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let text = match CACHED.get() {
        Some((made, text)) if now.duration_since(made) < Duration::from_millis(500) => text,
        _ => {
            let mut text = [b' '; 29];
            let formatted = httpdate::fmt_http_date(SystemTime::now());
            let length = formatted.len().min(text.len());
            text[..length].copy_from_slice(&formatted.as_bytes()[..length]);
            CACHED.set(Some((now, text)));
            text
        }
    };
    out.put_slice(b"date: ");
    out.put_slice(&text);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    #[test]
    fn framing_fields_are_never_copied() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("a"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("9"));
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
        let mut out = BytesMut::new();
        request(&mut out, &Method::PUT, "/a", &headers, Framing::Length(3));
        end(&mut out);
        assert_eq!(&out[..], b"PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n");
        out.clear();
        response(&mut out, StatusCode::NOT_MODIFIED, &headers, None);
        assert!(out.windows(19).any(|window| window == b"content-length: 9\r\n"));
        out.clear();
        date(&mut out);
        assert_eq!(out.len(), 6 + 29 + 2);
    }
}
