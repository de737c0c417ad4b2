//! `redirect:` and `respond:` of a route: responses of the gateway itself.
//!
//! This module does not know: how a response is made.

use http::{HeaderValue, StatusCode};

use crate::values::{authority, path};
use crate::yaml::Section;

const BODY_BYTES_MAX: usize = 64 << 10;

/// A response that sends the client to another URL. Absent parts keep the values of the request;
/// the query always stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// 301, 302, 307 or 308. Default 302.
    pub status: StatusCode,
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// With the port, unless it is the default port of the scheme.
    pub host: Option<String>,
    /// The new path.
    pub path: Option<RedirectPath>,
}

/// The path of a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// `path: /new`: replaces the whole path.
    Whole(String),
    /// `prefix: /new`: replaces the prefix that the route matches.
    Prefix(String),
}

/// A fixed response.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// Default 200; 200 to 599.
    pub status: StatusCode,
    /// Default empty; at most 64 KiB.
    pub body: String,
    /// Default `text/plain; charset=utf-8`.
    pub content_type: HeaderValue,
}

impl Redirect {
    pub(crate) fn read(section: &Section) -> Self {
        let statuses = [
            ("301", StatusCode::MOVED_PERMANENTLY),
            ("302", StatusCode::FOUND),
            ("307", StatusCode::TEMPORARY_REDIRECT),
            ("308", StatusCode::PERMANENT_REDIRECT),
        ];
        let advice = "write 301 or 308 (permanent), 302 or 307 (temporary); 307 and 308 keep the method";
        let schemes = [("http", "http"), ("https", "https")];
        let whole = section.scalar("path", path).map(RedirectPath::Whole);
        let prefix = section.scalar("prefix", path).map(RedirectPath::Prefix);
        if whole.is_some() && prefix.is_some() {
            section.error(section.line(), "prefix", "a redirect has path or prefix, not both");
        }
        if !["scheme", "host", "path", "prefix"].into_iter().any(|key| section.has(key)) {
            let message = "write scheme, host, path or prefix: without a change the redirect leads to itself";
            section.error(section.line(), "host", message);
        }
        Self {
            status: section.choice("status", &statuses, advice).unwrap_or(StatusCode::FOUND),
            scheme: section.choice("scheme", &schemes, "write http or https"),
            host: section.scalar("host", authority),
            path: whole.or(prefix),
        }
    }
}

impl DirectResponse {
    pub(crate) fn read(section: &Section) -> Self {
        let status = section.number("status", 200_u16, 599).and_then(|status| StatusCode::from_u16(status).ok());
        let body = section.scalar("body", |text| match text.len() {
            0..=BODY_BYTES_MAX => Ok(text.to_owned()),
            _ => Err("has more than 64KiB".into()),
        });
        let content_type = section.scalar("content_type", |text| {
            HeaderValue::from_str(text).map_err(|_| "is not a header value: write visible ASCII".into())
        });
        Self {
            status: status.unwrap_or(StatusCode::OK),
            body: body.unwrap_or_default(),
            content_type: content_type.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8")),
        }
    }
}
