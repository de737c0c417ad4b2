//! Checks of what a filter may set: names, values, targets, statuses, bodies and responses.
//!
//! This module does not know: calls, journals.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use witgate_http::semantics::fields::is_gateway_field;
use witgate_http::semantics::path::normalize;
use witgate_http::text::quoted;

/// The largest body that a filter may make or receive, in bytes.
pub(super) const BODY_BYTES_MAX: usize = witgate_manifest::BODY_BYTES_MAX as usize;
const REPLY_FIELDS_MAX: usize = 128;
const REPLY_FIELD_BYTES_MAX: usize = 64 << 10;

/// A checked response that a filter made.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 200 to 599.
    pub status: StatusCode,
    /// All fields but `content-length` and those of the connection.
    pub headers: HeaderMap,
    /// Empty for 204 and 304.
    pub body: Bytes,
}

/// Why a filter's edit or response is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// HTTP does not allow it, or only the gateway may set it.
    Invalid(String),
    /// It is above a limit.
    Limit(String),
    /// The limit on buffered body bytes is reached.
    Saturated(String),
}

impl Refusal {
    /// The reason.
    pub(crate) fn message(self) -> String {
        match self {
            Self::Invalid(message) | Self::Limit(message) | Self::Saturated(message) => message,
        }
    }
}

/// A header name that a filter may edit.
pub(crate) fn checked_name(name: &str) -> Result<HeaderName, Refusal> {
    let checked = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        Refusal::Invalid(format!("header name {} is not a token (RFC 9110, section 5.6.2)", quoted(name)))
    })?;
    if is_gateway_field(&checked) {
        return Err(Refusal::Invalid(format!("header {checked} belongs to the gateway: a filter cannot change it")));
    }
    Ok(checked)
}

/// A header value that HTTP allows.
pub(crate) fn checked_value(name: &HeaderName, value: &str) -> Result<HeaderValue, Refusal> {
    let value = value.trim_matches([' ', '\t']);
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        Refusal::Invalid(format!("header {name}: value {} has a control character (CR, LF, NUL, …)", quoted(value)))
    })
}

/// A target with another path or query. The path gets the same normal form as a client's path, so
/// that a filter cannot send the upstream a path that the gateway would reject from a client.
pub(crate) fn checked_target(path: &str, query: Option<&str>) -> Result<PathAndQuery, Refusal> {
    let refuse = |what: &str, text: &str, why: &str| {
        Refusal::Invalid(format!("{what} {} is not allowed in a request target: {why}", quoted(text)))
    };
    if !path.starts_with('/') {
        return Err(refuse("path", path, "a path begins with a slash"));
    }
    let normal = normalize(path).map_err(|why| refuse("path", path, why))?;
    let is_query_byte = |byte: u8| byte > b' ' && byte < 0x7f && byte != b'#';
    if let Some(query) = query.filter(|query| !query.bytes().all(is_query_byte)) {
        return Err(refuse("query", query, "a query has only visible ASCII and no #"));
    }
    let text = match query {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    PathAndQuery::try_from(text).map_err(|_| refuse("path or query", path, "it is not a URI reference"))
}

/// A status that a filter may respond with.
pub(crate) fn checked_status(status: u16) -> Result<StatusCode, Refusal> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..600).contains(&status) => Ok(code),
        _ => Err(Refusal::Invalid(format!("status {status} is not between 200 and 599"))),
    }
}

/// A body that a filter made, of at most `max` bytes.
pub(crate) fn checked_body(body: Vec<u8>, max: usize) -> Result<Bytes, Refusal> {
    if body.len() > max {
        let bytes = body.len();
        return Err(Refusal::Limit(format!(
            "a body of {bytes} bytes is above the limit of {max} (filters.NAME.body, at most {BODY_BYTES_MAX})"
        )));
    }
    Ok(body.into())
}

/// A response that a filter made, with a body of at most `body_max` bytes.
pub(crate) fn checked_reply(
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    body_max: usize,
) -> Result<Reply, Refusal> {
    let status = checked_status(status)?;
    let body = checked_body(body, body_max)?;
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    if fields.len() > REPLY_FIELDS_MAX || bytes > REPLY_FIELD_BYTES_MAX {
        return Err(Refusal::Limit(format!(
            "the reply has {} header fields with {bytes} bytes; the limits are {REPLY_FIELDS_MAX} and \
             {REPLY_FIELD_BYTES_MAX}",
            fields.len()
        )));
    }
    if !body.is_empty() && matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Err(Refusal::Invalid(format!("status {status} cannot have a body")));
    }
    let mut headers = HeaderMap::with_capacity(fields.len() + 4);
    for (name, value) in fields {
        let name = checked_name(&name)?;
        let value = checked_value(&name, &value)?;
        headers.append(name, value);
    }
    Ok(Reply { status, headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_fields_and_invalid_values_are_refused() {
        for name in
            ["connection", "Content-Length", "HOST", "te", "transfer-encoding", "upgrade", "keep-alive", "", "a b", "é"]
        {
            assert!(matches!(checked_name(name), Err(Refusal::Invalid(_))), "{name}");
        }
        let name = HeaderName::from_static("x-a");
        for value in ["a\r\nb: c", "a\0", "a\nb", "\x7f"] {
            assert!(checked_value(&name, value).is_err(), "{value:?}");
        }
        assert_eq!(checked_value(&name, "  a \t"), Ok(HeaderValue::from_static("a")));
        for status in [0, 99, 100, 101, 199, 600, 999] {
            assert!(checked_status(status).is_err(), "{status}");
        }
        for (path, query) in [
            ("", None),
            ("a", None),
            ("/a b", None),
            ("/a?b", None),
            ("/a#", None),
            ("/\r\n", None),
            ("/", Some("a b")),
            ("/é", None),
        ] {
            assert!(checked_target(path, query).is_err(), "{path} {query:?}");
        }
        assert_eq!(checked_target("/a%20b", Some("")).map(|target| target.to_string()), Ok("/a%20b?".into()));
    }

    #[test]
    fn a_filters_path_gets_the_normal_form_of_a_clients_path() {
        let target = |path| checked_target(path, Some("q")).map(|target| target.to_string());
        assert_eq!(target("/a/../../etc/%2e%2e/x"), Ok("/x?q".into()));
        assert_eq!(target("/a//b/./%7Ec"), Ok("/a/b/~c?q".into()));
        for path in ["/a\\b", "/%00", "/%zz", "/..;x/", "/a%2F..%2Fb", "*"] {
            assert!(matches!(target(path), Err(Refusal::Invalid(_))), "{path}");
        }
    }

    #[test]
    fn replies_are_bounded_and_valid() {
        assert!(checked_reply(204, vec![], vec![1], 1).is_err());
        assert!(checked_reply(200, vec![], vec![1; 8], 8).is_ok());
        assert!(matches!(checked_reply(200, vec![], vec![1; 9], 8), Err(Refusal::Limit(_))));
        assert!(matches!(checked_reply(200, vec![("a".into(), "b".into()); 129], vec![], 1), Err(Refusal::Limit(_))));
    }
}
