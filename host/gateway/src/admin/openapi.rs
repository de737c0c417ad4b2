//! `/openapi.json`: the description of the admin listener's resources as OpenAPI 3.1.
//!
//! The schemas come from the types of the responses, and a test compares the paths with those that
//! the router has. The document is also in docs/reference, where a test keeps it up to date. This
//! module does not know: how requests are routed.

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use super::config::ShownConfig;
use super::filters::ShownFilter;
use super::releases::{CommandResult, FilterRelease};
use super::reply::{Reply, json as reply_json};
use super::role::Role;
use super::routes::ShownRoute;
use super::upstreams::ShownUpstream;
use crate::pipeline::snapshot::Shared;
use crate::releases::history::PastDecision;
use crate::telemetry::{ListedFailures, ShownExchange};
use crate::tls::ListedCertificate;

/// A resource, and its response.
struct Described {
    path: &'static str,
    summary: &'static str,
    query: &'static [Parameter],
    answer: Answer,
    /// Statuses beside 200, 401 and 403, with their meaning.
    more: &'static [(&'static str, &'static str)],
}

/// A parameter of the query: name, meaning, schema as JSON.
type Parameter = (&'static str, &'static str, &'static str);

/// The body of a response with status 200.
enum Answer {
    Text,
    /// An object whose keys this document does not describe.
    Object,
    Json(fn(&mut Schemas) -> Value),
    /// Lines with an object each, until the reader leaves.
    Lines(fn(&mut Schemas) -> Value),
}

type Schemas = Vec<(String, RefOr<Schema>)>;

const NAME_IS_UNKNOWN: (&str, &str) = ("404", "No filter has this name.");
const NOT_NOW: (&str, &str) = ("409", "The filter's state does not allow it. The text says why.");

const DESCRIBED: &[Described] = &[
    text("/metrics", "The metrics as Prometheus text, or as OpenMetrics"),
    text("/healthz", "Whether the process runs"),
    Described {
        more: &[("503", "The gateway drains, or is about to.")],
        ..text("/readyz", "Whether the gateway accepts connections")
    },
    answer("/filters", "The loaded filters, both versions of one that is released", Answer::Json(list::<ShownFilter>)),
    answer("/upstreams", "The endpoints of upstreams with their status", Answer::Json(list::<ShownUpstream>)),
    answer("/routes", "The routes with their filters and upstreams", Answer::Json(list::<ShownRoute>)),
    answer("/exchanges", "The last exchanges that failed, with causes and advice", Answer::Json(one::<ListedFailures>)),
    Described {
        query: &[
            ("route", "Only exchanges of this route", r#"{"type": "string"}"#),
            ("status", "Only these statuses: 5xx, 404 or 200-299, separated by commas", r#"{"type": "string"}"#),
            (
                "slower",
                "Only exchanges that took at least so many milliseconds",
                r#"{"type": "integer", "minimum": 0}"#,
            ),
            ("filter", "Examples of the calls of this filter, in place of exchanges", r#"{"type": "string"}"#),
            ("count", "How many lines", r#"{"type": "integer", "minimum": 1, "maximum": 1000000}"#),
            ("seconds", "For how long", r#"{"type": "integer", "minimum": 1, "maximum": 1000000}"#),
        ],
        more: &[("400", "A parameter is invalid."), ("429", "There are as many readers as there may be.")],
        ..answer(
            "/tap",
            "The exchanges that end from now on. A line `{\"lost\": N}` says that the reader was too slow for N others, \
             and an empty line that the gateway lives",
            Answer::Lines(one::<ShownExchange>),
        )
    },
    answer("/role", "What the caller may do", Answer::Json(one::<Role>)),
    answer("/config", "The configuration in service, without secrets", Answer::Json(one::<ShownConfig>)),
    answer("/certificates", "The certificates in service", Answer::Json(list::<ListedCertificate>)),
    answer("/openapi.json", "This document", Answer::Object),
    answer("/releases", "The versions of each filter, and the release that runs", Answer::Json(list::<FilterRelease>)),
    Described {
        query: &[
            ("filter", "Only decisions about this filter", r#"{"type": "string"}"#),
            ("limit", "How many decisions", r#"{"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}"#),
        ],
        more: &[("400", "A parameter is invalid."), ("503", "The history cannot be read.")],
        ..answer(
            "/releases/history",
            "What was decided about versions, newest first",
            Answer::Json(list::<PastDecision>),
        )
    },
    command(
        "/releases/{name}/promote",
        "Give all exchanges to the version that is released, or to the quarantined one",
    ),
    command("/releases/{name}/pause", "Stop the steps of a release"),
    command("/releases/{name}/resume", "Let the steps of a release go on"),
    Described {
        query: &[("to", "An earlier version, or the first digits of its digest", r#"{"type": "string"}"#)],
        more: &[("400", "A parameter is invalid."), NAME_IS_UNKNOWN, NOT_NOW],
        ..command("/releases/{name}/rollback", "End a release, or go back to an earlier version")
    },
    Described {
        more: &[],
        answer: Answer::Text,
        ..command("/drain", "Stop to accept connections, finish those in flight, and end the process")
    },
    Described {
        query: &[(
            "level",
            "Such as info,filter=debug. Without it, the level of gateway.yaml",
            r#"{"type": "string"}"#,
        )],
        more: &[("400", "The level is invalid.")],
        answer: Answer::Text,
        ..command("/log", "Change the level of the gateway's own log")
    },
];

const fn text(path: &'static str, summary: &'static str) -> Described {
    answer(path, summary, Answer::Text)
}

const fn answer(path: &'static str, summary: &'static str, answer: Answer) -> Described {
    Described { path, summary, query: &[], answer, more: &[] }
}

const fn command(path: &'static str, summary: &'static str) -> Described {
    let more: &[(&str, &str)] = &[NAME_IS_UNKNOWN, NOT_NOW];
    Described { path, summary, query: &[], answer: Answer::Json(one::<CommandResult>), more }
}

fn reference<T: ToSchema>(schemas: &mut Schemas) -> Value {
    schemas.push((T::name().into_owned(), <T as PartialSchema>::schema()));
    T::schemas(schemas);
    json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
}

fn one<T: ToSchema>(schemas: &mut Schemas) -> Value {
    reference::<T>(schemas)
}

fn list<T: ToSchema>(schemas: &mut Schemas) -> Value {
    json!({ "type": "array", "items": reference::<T>(schemas) })
}

/// The document.
pub(super) fn get(_: &Shared) -> Reply {
    reply_json(&document())
}

fn document() -> Value {
    let mut schemas = Schemas::new();
    let paths: Map<String, Value> =
        DESCRIBED.iter().map(|one| (one.path.to_owned(), operation(one, &mut schemas))).collect();
    let schemas: Map<String, Value> = schemas.into_iter().map(|(name, schema)| (name, json!(schema))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "witgate admin listener",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "admin.token; admin.read_token to read" },
                "certificate": { "type": "mutualTLS", "description": "A certificate in admin.clients.change; in admin.clients.read to read" },
            },
        },
    })
}

fn operation(described: &Described, schemas: &mut Schemas) -> Value {
    let is_command = is_command(described.path);
    let content = match &described.answer {
        Answer::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Answer::Object => json!({ "application/json": { "schema": { "type": "object" } } }),
        Answer::Json(schema) => json!({ "application/json": { "schema": schema(schemas) } }),
        Answer::Lines(schema) => json!({ "application/x-ndjson": { "schema": schema(schemas) } }),
    };
    let refusal = |description: &str| {
        json!({
            "description": description,
            "content": { "text/plain": { "schema": { "type": "string" } } },
        })
    };
    let mut responses = Map::new();
    responses.insert("200".into(), json!({ "description": described.summary, "content": content }));
    if !is_public(described.path) {
        responses.insert("401".into(), refusal("The token is missing or wrong, and no certificate has a role."));
        responses.insert("403".into(), refusal("The role, the host or the origin does not allow it."));
    }
    for (status, meaning) in described.more {
        responses.insert((*status).to_owned(), refusal(meaning));
    }
    let mut parameters: Vec<Value> = vec![];
    if described.path.contains("{name}") {
        let schema = json!({ "type": "string", "minLength": 1 });
        parameters.push(
            json!({ "name": "name", "in": "path", "required": true, "description": "The filter", "schema": schema }),
        );
    }
    for (name, description, schema) in described.query {
        let schema: Value = serde_json::from_str(schema).unwrap_or_default();
        parameters.push(json!({ "name": name, "in": "query", "description": description, "schema": schema }));
    }
    let security =
        if is_public(described.path) { json!([]) } else { json!([{}, { "token": [] }, { "certificate": [] }]) };
    let method = if is_command { "post" } else { "get" };
    let id: String = described.path.trim_matches('/').replace("{name}/", "").replace(['/', '.'], "_");
    json!({ method: {
        "operationId": id,
        "summary": described.summary,
        "parameters": parameters,
        "responses": responses,
        "security": security,
    } })
}

fn is_command(path: &str) -> bool {
    path.contains("{name}") || matches!(path, "/drain" | "/log")
}

fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/openapi.json")
}

#[cfg(test)]
mod tests {
    use super::super::router;
    use super::*;

    #[test]
    fn every_resource_is_described() {
        let described: Vec<(&str, bool)> = DESCRIBED.iter().map(|one| (one.path, is_command(one.path))).collect();
        for (path, is_command) in router::resources() {
            if !path.starts_with("/console") {
                assert!(described.contains(&(path, is_command)), "{path} is not in openapi.rs");
            }
        }
        for (path, _) in described {
            // Its body goes on, so the router does not answer it.
            let is_known = path == "/tap" || router::resources().any(|(known, _)| known == path);
            assert!(is_known, "{path} is not in router.rs");
        }
    }

    #[test]
    fn the_document_of_the_reference_is_this_one() -> anyhow::Result<()> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/openapi.json");
        let text = format!("{:#}\n", document());
        if std::env::var_os("WRITE_OPENAPI").is_some() {
            std::fs::write(path, &text)?;
        }
        assert!(std::fs::read_to_string(path)? == text, "docs/reference/openapi.json is old: run `just openapi`");
        Ok(())
    }
}
