//! The paths of the admin listener, their methods and their handlers.
//!
//! A path must match exactly, but for `{name}`; the query is ignored. Handlers of GET change
//! nothing. Handlers of POST are commands: `access` decides who may give them, and each one is a
//! line in the log, whether it was carried out or not. This module does not know: what a handler
//! answers.

use http::{HeaderValue, Method, Request, StatusCode, header};

use super::access::{Caller, authorize};
use super::reply::{Reply, text};
use super::{console, exchanges, filters, health, metrics, releases, routes, upstreams};
use crate::pipeline::snapshot::Shared;
use witgate_http::text::quoted;

/// A resource of the admin listener.
struct Resource {
    method: Method,
    path: &'static str,
    handler: Handler,
}

/// What answers requests for a resource.
enum Handler {
    /// Changes nothing.
    Read(fn(&Shared) -> Reply),
    /// A command for what `{name}` stands for.
    Command(fn(&Shared, &str) -> Reply),
}

const RESOURCES: &[Resource] = &[
    read("/metrics", metrics::get),
    read("/healthz", health::get_liveness),
    read("/readyz", health::get_readiness),
    read("/filters", filters::get),
    read("/upstreams", upstreams::get),
    read("/routes", routes::get),
    read("/exchanges", exchanges::get),
    read("/releases", releases::get),
    command("/releases/{name}/promote", releases::promote),
    command("/releases/{name}/pause", releases::pause),
    command("/releases/{name}/resume", releases::resume),
    command("/releases/{name}/rollback", releases::roll_back),
    read("/console", console::get_page),
    read("/console/console.js", console::get_script),
    read("/console/console.css", console::get_style),
    read("/console/uplot.js", console::get_charts_script),
    read("/console/uplot.css", console::get_charts_style),
];

const fn read(path: &'static str, handler: fn(&Shared) -> Reply) -> Resource {
    Resource { method: Method::GET, path, handler: Handler::Read(handler) }
}

const fn command(path: &'static str, handler: fn(&Shared, &str) -> Reply) -> Resource {
    Resource { method: Method::POST, path, handler: Handler::Command(handler) }
}

/// Answers a request. hyper removes the body of a response to HEAD.
pub(super) fn respond<B>(shared: &Shared, caller: &Caller, request: &Request<B>) -> Reply {
    let path = request.uri().path();
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    if is_read && path == "/metrics" && metrics::wants_openmetrics(request.headers()) {
        return metrics::get_openmetrics(shared);
    }
    let found = RESOURCES.iter().find_map(|resource| Some((resource, match_path(resource.path, path)?)));
    match found {
        None if path != "/" => not_found(path),
        None if is_read && accepts_html(request) => console::get_page(shared),
        None if is_read => text(StatusCode::OK, list_paths("\n") + "\n"),
        None => wrong_method("GET"),
        Some((Resource { handler: Handler::Read(get), .. }, _)) if is_read => get(shared),
        Some((Resource { handler: Handler::Command(run), method, .. }, name)) if method == request.method() => {
            run_command(shared, caller, request, |shared| run(shared, name))
        }
        Some((resource, _)) => wrong_method(resource.method.as_str()),
    }
}

/// True for a browser. Other clients get the list of paths.
fn accepts_html<B>(request: &Request<B>) -> bool {
    request.headers().get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"))
}

/// Checks who asks, and writes the audit log.
fn run_command<B>(shared: &Shared, caller: &Caller, request: &Request<B>, run: impl FnOnce(&Shared) -> Reply) -> Reply {
    let token = shared.snapshot.load().config.admin_token.clone();
    let (command, from) = (quoted(request.uri().path()), caller.peer);
    match authorize(caller, token.as_ref(), request.headers()) {
        Ok(actor) => {
            let reply = run(shared);
            let (who, status) = (actor.label(), reply.status().as_u16());
            tracing::info!(who, command, %from, status, "audit: an operator gave a command");
            reply
        }
        Err(refusal) => {
            tracing::warn!(command, %from, why = refusal.why(), "audit: a command was refused");
            refusal.reply()
        }
    }
}

/// The value of `{name}`, or an empty one, if a path matches.
fn match_path<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, after)) = pattern.split_once("{name}") else {
        return (pattern == path).then_some("");
    };
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

fn wrong_method(allowed: &str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}\n"));
    if let Ok(value) = HeaderValue::from_str(allowed) {
        reply.headers_mut().insert(header::ALLOW, value);
    }
    reply
}

fn not_found(path: &str) -> Reply {
    text(StatusCode::NOT_FOUND, format!("there is no {path}; the paths are {}\n", list_paths(", ")))
}

fn list_paths(separator: &str) -> String {
    let shown = |resource: &Resource| match resource.handler {
        Handler::Read(_) => resource.path.to_owned(),
        Handler::Command(_) => format!("{} {}", resource.method, resource.path),
    };
    RESOURCES.iter().map(shown).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::match_path;

    #[test]
    fn a_name_is_one_segment() {
        let pattern = "/releases/{name}/promote";
        assert_eq!(match_path(pattern, "/releases/a.b-c/promote"), Some("a.b-c"));
        for path in ["/releases//promote", "/releases/a/b/promote", "/releases/promote", "/releases/a/pause"] {
            assert_eq!(match_path(pattern, path), None, "{path}");
        }
        assert_eq!(match_path("/metrics", "/metrics"), Some(""));
    }
}
