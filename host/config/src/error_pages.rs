//! `error_pages:`: bodies that replace the JSON text of failures.
//!
//! This module does not know: how a failure becomes a response.

use std::sync::Arc;

use http::HeaderValue;
use witgate_http::error::Kind;

use crate::yaml::{Section, nearest};

const BODY_BYTES_MAX: usize = 64 << 10;
/// Entries of one list. Each failure compares them in order.
const PAGES_MAX: usize = 64;

/// The body for some failures of the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// The failures. At least one.
    pub on: Vec<ErrorPageMatch>,
    /// At most 64 KiB. `{request_id}` stands for the id of the request.
    pub body: Arc<str>,
    /// Default `text/html; charset=utf-8`.
    pub content_type: HeaderValue,
}

/// Failures that a page is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorPageMatch {
    /// `upstream-timeout`: the label of a kind.
    Kind(&'static str),
    /// `404`.
    Status(u16),
    /// `5xx`: the first digit of the status.
    Class(u16),
}

impl ErrorPage {
    /// The first page of a list for this kind of failure.
    pub fn find(pages: &[Self], kind: Kind) -> Option<&Self> {
        pages.iter().find(|page| page.on.iter().any(|one| one.matches(kind)))
    }

    fn read(section: &Section) -> Self {
        section.require("on", "list statuses such as 404 or 5xx, or kinds such as upstream-timeout");
        section.require("body", "write the text, or {file: PATH}");
        let body = section.document("body", |text| match text.len() {
            0..=BODY_BYTES_MAX => Ok(text.into()),
            _ => Err("has more than 64KiB".into()),
        });
        let content_type = section.scalar("content_type", |text| {
            HeaderValue::from_str(text).map_err(|_| "is not a header value: write visible ASCII".into())
        });
        Self {
            on: section.list("on", ErrorPageMatch::parse),
            body: body.unwrap_or_else(|| "".into()),
            content_type: content_type.unwrap_or(HeaderValue::from_static("text/html; charset=utf-8")),
        }
    }
}

impl ErrorPageMatch {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "4xx" => return Ok(Self::Class(4)),
            "5xx" => return Ok(Self::Class(5)),
            _ => {}
        }
        if let Ok(status) = text.parse() {
            return match Kind::ALL.iter().any(|kind| kind.status().as_u16() == status) {
                true => Ok(Self::Status(status)),
                false => Err("no failure of the gateway has this status".into()),
            };
        }
        let labels = Kind::ALL.map(Kind::label);
        labels.iter().find(|label| **label == text).map(|label| Self::Kind(label)).ok_or_else(|| {
            match nearest(text, &labels) {
                Some(near) => format!("no failure has this kind: did you mean {near}?"),
                None => "write a status, 4xx, 5xx, or a kind of docs/reference/errors.md".into(),
            }
        })
    }

    fn matches(&self, kind: Kind) -> bool {
        match self {
            Self::Kind(label) => kind.label() == *label,
            Self::Status(status) => kind.status().as_u16() == *status,
            Self::Class(class) => kind.status().as_u16() / 100 == *class,
        }
    }
}

/// The list `error_pages` of the whole file or of a route.
pub(crate) fn read(section: &Section) -> Vec<ErrorPage> {
    let pages = section.each("error_pages", |_, section| ErrorPage::read(section));
    if pages.len() > PAGES_MAX {
        section.error_at(&["error_pages"], format!("has more than {PAGES_MAX} entries"));
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_that_matches_is_found() {
        let page = |on: &[&str]| {
            let on = on.iter().filter_map(|text| ErrorPageMatch::parse(text).ok()).collect();
            ErrorPage { on, body: "".into(), content_type: HeaderValue::from_static("a/b") }
        };
        let pages = [page(&["upstream-timeout"]), page(&["404", "401"]), page(&["5xx"])];
        let index = |kind| {
            let found = ErrorPage::find(&pages, kind);
            found.and_then(|found| pages.iter().position(|page| std::ptr::eq(page, found)))
        };
        assert_eq!(index(Kind::UpstreamTimeout), Some(0));
        assert_eq!(index(Kind::NoRoute), Some(1));
        assert_eq!(index(Kind::Unauthorized), Some(1));
        assert_eq!(index(Kind::UpstreamConnectTimeout), Some(2));
        assert_eq!(index(Kind::Forbidden), None);
        assert!(ErrorPageMatch::parse("418").is_err() && ErrorPageMatch::parse("upstream-timeot").is_err());
    }
}
