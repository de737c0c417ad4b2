//! Header fields in the form of the WIT interfaces, for requests and responses alike.
//!
//! This module does not know: which message a field belongs to.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

/// Name and value of one line.
pub(super) type Field = (String, String);

/// The lines of a header as one value (RFC 9110, section 5.3). `cookie` has its own separator
/// (RFC 9113, section 8.2.3). `None` if there are no lines.
pub(super) fn joined_bytes(lines: &[&HeaderValue], name: &HeaderName) -> Option<Vec<u8>> {
    let separator: &[u8] = if *name == header::COOKIE { b"; " } else { b", " };
    let (first, rest) = lines.split_first()?;
    let mut joined = first.as_bytes().to_vec();
    for line in rest {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(line.as_bytes());
    }
    Some(joined)
}

/// Like [`joined_bytes`], as text. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn joined(lines: &[&HeaderValue], name: &HeaderName) -> Option<String> {
    match lines {
        [line] => Some(text(line)),
        lines => joined_bytes(lines, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// The lines of a header, one by one.
pub(super) fn separate(lines: &[&HeaderValue], _: &HeaderName) -> Option<Vec<String>> {
    Some(lines.iter().map(|line| text(line)).collect())
}

/// All lines of all headers.
pub(super) fn all(headers: &HeaderMap) -> Vec<Field> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
