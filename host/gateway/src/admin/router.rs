//! The paths of the admin listener and their handlers.
//!
//! A path must match exactly; the query is ignored. Only GET and HEAD are allowed, because no
//! resource changes anything. This module does not know: what a handler answers.

use http::{Method, Request, StatusCode, header};

use super::reply::{Reply, text};
use super::{console, exchanges, filters, health, metrics, routes, upstreams};
use crate::pipeline::snapshot::Shared;

/// A resource of the admin listener.
struct Resource {
    path: &'static str,
    get: fn(&Shared) -> Reply,
}

const RESOURCES: &[Resource] = &[
    Resource { path: "/metrics", get: metrics::get },
    Resource { path: "/healthz", get: health::get_liveness },
    Resource { path: "/readyz", get: health::get_readiness },
    Resource { path: "/filters", get: filters::get },
    Resource { path: "/upstreams", get: upstreams::get },
    Resource { path: "/routes", get: routes::get },
    Resource { path: "/exchanges", get: exchanges::get },
    Resource { path: "/console", get: console::get_page },
    Resource { path: "/console/console.js", get: console::get_script },
    Resource { path: "/console/console.css", get: console::get_style },
    Resource { path: "/console/uplot.js", get: console::get_charts_script },
    Resource { path: "/console/uplot.css", get: console::get_charts_style },
];

/// Answers a request. hyper removes the body of a response to HEAD.
pub(super) fn respond<B>(shared: &Shared, request: &Request<B>) -> Reply {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let path = request.uri().path();
    if path == "/metrics" && metrics::wants_openmetrics(request.headers()) {
        return metrics::get_openmetrics(shared);
    }
    match RESOURCES.iter().find(|resource| resource.path == path) {
        Some(resource) => (resource.get)(shared),
        None if path == "/" && accepts_html(request) => console::get_page(shared),
        None if path == "/" => text(StatusCode::OK, list_paths("\n") + "\n"),
        None => text(StatusCode::NOT_FOUND, format!("there is no {path}; the paths are {}\n", list_paths(", "))),
    }
}

/// True for a browser. Other clients get the list of paths.
fn accepts_html<B>(request: &Request<B>) -> bool {
    request.headers().get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"))
}

fn list_paths(separator: &str) -> String {
    RESOURCES.iter().map(|resource| resource.path).collect::<Vec<_>>().join(separator)
}
