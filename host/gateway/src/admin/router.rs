//! The paths of the admin listener, their methods and their handlers.
//!
//! A path must match exactly, but for `{name}`. Handlers of GET change nothing. Handlers of POST
//! are commands. `access` decides who may use a resource, and each command is a line in the log,
//! whether it was carried out or not. This module does not know: what a handler answers.

use http::{HeaderValue, Method, Request, StatusCode, header};

use super::access::{Access, Actor, Caller, Refusal, authorize};
use super::call::Call;
use super::reply::{Reply, text};
use super::{
    certificates, config, console, drain, exchanges, filters, health, history, log, metrics, openapi, releases, role,
    routes, upstreams,
};
use crate::pipeline::snapshot::Shared;
use crate::releases::decision::Who;
use crate::telemetry::WARNINGS;
use witgate_http::text::quoted;

/// A resource of the admin listener.
struct Resource {
    method: Method,
    path: &'static str,
    access: Access,
    handler: Handler,
}

/// What answers requests for a resource.
enum Handler {
    /// Changes nothing.
    Read(fn(&Shared) -> Reply),
    /// Changes nothing, and reads the query.
    Query(fn(&Shared, &str) -> Reply),
    /// Changes nothing, and says what the caller may do.
    Role(fn(Actor, bool) -> Reply),
    /// Changes something.
    Command(fn(&Shared, &Call<'_>) -> Reply),
}

const RESOURCES: &[Resource] = &[
    read("/metrics", metrics::get),
    public("/healthz", health::get_liveness),
    public("/readyz", health::get_readiness),
    read("/filters", filters::get),
    read("/upstreams", upstreams::get),
    read("/routes", routes::get),
    read("/exchanges", exchanges::get),
    read("/releases", releases::get),
    read("/config", config::get),
    read("/certificates", certificates::get),
    public("/openapi.json", openapi::get),
    Resource { method: Method::GET, path: "/role", access: Access::Read, handler: Handler::Role(role::get) },
    command("/drain", drain::post),
    command("/log", log::post),
    query("/releases/history", history::get),
    command("/releases/{name}/promote", releases::promote),
    command("/releases/{name}/pause", releases::pause),
    command("/releases/{name}/resume", releases::resume),
    command("/releases/{name}/rollback", releases::roll_back),
    public("/console", console::get_page),
    public("/console/console.js", console::get_script),
    public("/console/console.css", console::get_style),
    public("/console/uplot.js", console::get_charts_script),
    public("/console/uplot.css", console::get_charts_style),
];

/// The path of each resource, and whether it is a command.
#[cfg(test)]
pub(super) fn resources() -> impl Iterator<Item = (&'static str, bool)> {
    RESOURCES.iter().map(|resource| (resource.path, resource.access == Access::Command))
}

/// It shows nothing about the gateway, or only whether it runs.
const fn public(path: &'static str, handler: fn(&Shared) -> Reply) -> Resource {
    Resource { method: Method::GET, path, access: Access::Public, handler: Handler::Read(handler) }
}

const fn read(path: &'static str, handler: fn(&Shared) -> Reply) -> Resource {
    Resource { method: Method::GET, path, access: Access::Read, handler: Handler::Read(handler) }
}

const fn query(path: &'static str, handler: fn(&Shared, &str) -> Reply) -> Resource {
    Resource { method: Method::GET, path, access: Access::Read, handler: Handler::Query(handler) }
}

const fn command(path: &'static str, handler: fn(&Shared, &Call<'_>) -> Reply) -> Resource {
    Resource { method: Method::POST, path, access: Access::Command, handler: Handler::Command(handler) }
}

/// Answers a request. hyper removes the body of a response to HEAD.
pub(super) fn respond<B>(shared: &Shared, caller: &Caller, request: &Request<B>) -> Reply {
    let path = request.uri().path();
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let found = RESOURCES.iter().find_map(|resource| Some((resource, match_path(resource.path, path)?)));
    let (resource, name) = match found {
        Some(found) => found,
        None if path != "/" => return not_found(path),
        None if is_read && accepts_html(request) => return console::get_page(shared),
        None if is_read => return text(StatusCode::OK, list_paths("\n") + "\n"),
        None => return wrong_method("GET"),
    };
    let query = request.uri().query().unwrap_or_default();
    match resource.handler {
        Handler::Command(run) if resource.method == request.method() => {
            run_command(shared, caller, request, |who| run(shared, &Call { name, query, who }))
        }
        Handler::Read(get) if is_read => read_resource(shared, caller, request, resource.access, |_| {
            let wants_openmetrics = path == "/metrics" && metrics::wants_openmetrics(request.headers());
            if wants_openmetrics { metrics::get_openmetrics(shared) } else { get(shared) }
        }),
        Handler::Query(get) if is_read => {
            read_resource(shared, caller, request, resource.access, |_| get(shared, query))
        }
        Handler::Role(get) if is_read => read_resource(shared, caller, request, resource.access, |actor| {
            let config = shared.snapshot.load().config.clone();
            get(actor, authorize(caller, Access::Command, &config.admin, request.headers()).is_ok())
        }),
        _ => wrong_method(resource.method.as_str()),
    }
}

/// Checks who asks.
fn read_resource<B>(
    shared: &Shared,
    caller: &Caller,
    request: &Request<B>,
    access: Access,
    get: impl FnOnce(Actor) -> Reply,
) -> Reply {
    let config = shared.snapshot.load().config.clone();
    match authorize(caller, access, &config.admin, request.headers()) {
        Ok(actor) => get(actor),
        Err(refusal) => refusal.reply(),
    }
}

/// True for a browser. Other clients get the list of paths.
fn accepts_html<B>(request: &Request<B>) -> bool {
    request.headers().get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"))
}

/// Checks who asks, and writes the audit log.
fn run_command<B>(shared: &Shared, caller: &Caller, request: &Request<B>, run: impl FnOnce(Who) -> Reply) -> Reply {
    let config = shared.snapshot.load().config.clone();
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let (command, from) = (quoted(target), caller.from.as_str());
    match authorize(caller, Access::Command, &config.admin, request.headers()) {
        Ok(actor) => {
            let reply = run(Who::Operator { role: actor.label(), from: from.to_string() });
            let (who, status) = (actor.label(), reply.status().as_u16());
            // Every command that was carried out is logged. Others can be repeated at any rate.
            let suppressed = if reply.status().is_success() { Some(0) } else { WARNINGS.allow("admin failed") };
            if let Some(suppressed) = suppressed {
                let suppressed = (suppressed > 0).then_some(suppressed);
                tracing::info!(who, command, from, status, suppressed, "audit: an operator gave a command");
            }
            reply
        }
        Err(refusal) => {
            warn_refused(&command, from, &refusal);
            refusal.reply()
        }
    }
}

/// Everybody who can connect can repeat a refused command, at any rate. One kind of refusal does
/// not hide another.
fn warn_refused(command: &str, from: &str, refusal: &Refusal) {
    if let Some(suppressed) = WARNINGS.allow(&format!("admin {}", refusal.label())) {
        let suppressed = (suppressed > 0).then_some(suppressed);
        tracing::warn!(command, from, why = refusal.why(), suppressed, "audit: a command was refused");
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
        Handler::Read(_) | Handler::Query(_) | Handler::Role(_) => resource.path.to_owned(),
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
