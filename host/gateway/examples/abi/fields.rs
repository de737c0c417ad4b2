//! The request fields that both benchmarks of calls use, so that their figures are comparable.
//!
//! This module does not know: what is measured.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields of a browser's request.
pub(crate) const FIELDS: [(&str, &str); 9] = [
    ("host", "bench.test"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("accept", "text/html,application/xhtml+xml"),
    ("accept-encoding", "gzip, br"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("cache-control", "no-cache"),
    ("cookie", "session=abcdef0123456789; theme=dark"),
    ("x-api-key", "s3cret"),
    ("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc"),
];

/// The fields as a header map.
pub(crate) fn browser() -> HeaderMap {
    FIELDS.into_iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}
