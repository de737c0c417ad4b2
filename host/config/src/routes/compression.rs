//! `compression:` of a route: which responses the gateway compresses.
//!
//! This module does not know: how a response is compressed.

use crate::values::token;
use crate::yaml::Section;

/// Media types that are compressed by default.
const DEFAULT_TYPES: &[&str] = &[
    "text/html",
    "text/css",
    "text/plain",
    "text/javascript",
    "text/xml",
    "text/csv",
    "text/markdown",
    "text/event-stream",
    "application/javascript",
    "application/json",
    "application/problem+json",
    "application/ld+json",
    "application/xml",
    "application/wasm",
    "image/svg+xml",
];

/// Which responses the gateway compresses.
#[derive(Debug, Clone, PartialEq)]
pub struct Compression {
    /// Media types in lower case: `application/json`, `text/*`.
    pub types: Vec<String>,
    /// Responses that are known to be shorter are not compressed. Default 1024; at most 1 GiB.
    pub min_bytes: usize,
    /// The first has priority if the client accepts several equally. Default zstd, br, gzip.
    pub encodings: Vec<Encoding>,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Compression {
    pub(crate) fn read(section: &Section) -> Self {
        let known = [("zstd", Encoding::Zstd), ("br", Encoding::Brotli), ("gzip", Encoding::Gzip)];
        let mut types = section.list("types", media_type);
        if !section.has("types") {
            types = DEFAULT_TYPES.iter().map(|name| (*name).to_owned()).collect();
        }
        let mut encodings = section.choices("encodings", &known, "write zstd, br or gzip");
        if !section.has("encodings") {
            encodings = known.map(|(_, encoding)| encoding).into();
        }
        Self { types, min_bytes: section.size("min_bytes", 0, 1 << 30).unwrap_or(1024), encodings }
    }
}

fn media_type(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((kind, sub)) if token(kind).is_ok() && token(sub).is_ok() && kind != "*" => Ok(text.to_ascii_lowercase()),
        _ => Err("write a media type such as application/json or text/*".into()),
    }
}
