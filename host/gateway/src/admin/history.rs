//! `/releases/history`: what was decided about the versions of filters, newest first, as JSON.
//!
//! This module does not know: where decisions are kept.

use http::StatusCode;

use super::query;
use super::reply::{Reply, json, text};
use crate::control::rollout;
use crate::pipeline::snapshot::Shared;

/// Decisions in one response.
const DECISIONS_MAX: usize = 1000;
const DECISIONS_DEFAULT: usize = 50;

/// The query has `filter=NAME` and `limit=NUMBER`, both optional.
pub(super) fn get(shared: &Shared, query: &str) -> Reply {
    let filter = query::value(query, "filter").transpose();
    let (filter, most) = match (filter, query::number(query, "limit", DECISIONS_MAX, DECISIONS_DEFAULT)) {
        (Ok(filter), Ok(most)) => (filter, most),
        (Err(why), _) | (_, Err(why)) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let history = rollout::lock(&shared.releases).history();
    match history.last(filter.as_deref(), most).map(|list| serde_json::json!(list)) {
        Ok(list) => json(&list),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
