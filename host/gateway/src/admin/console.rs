//! The console: a page that shows traffic, failures, releases, routes, filters and upstreams of
//! this gateway, and gives commands for releases.
//!
//! The page is embedded in the binary and loads nothing from elsewhere. It uses the other resources
//! of the admin listener with the role of its reader. The charts are drawn by uPlot 1.6.32 (MIT
//! licence). This module does not know: the numbers that the page shows.

use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

use super::reply::{Reply, reply};
use crate::pipeline::snapshot::Shared;

/// Only files of this listener may be loaded, and no other page may embed the console.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(super) fn get_page(_: &Shared) -> Reply {
    file("text/html; charset=utf-8", include_str!("console/console.html"))
}

/// The page's script.
pub(super) fn get_script(_: &Shared) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("console/console.js"))
}

/// The page's style.
pub(super) fn get_style(_: &Shared) -> Reply {
    file("text/css; charset=utf-8", include_str!("console/console.css"))
}

/// The chart library.
pub(super) fn get_charts_script(_: &Shared) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("console/uplot.js"))
}

/// The style of the chart library.
pub(super) fn get_charts_style(_: &Shared) -> Reply {
    file("text/css; charset=utf-8", include_str!("console/uplot.css"))
}

fn file(content_type: &'static str, content: &'static str) -> Reply {
    let mut response = reply(http::StatusCode::OK, content_type, content);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
