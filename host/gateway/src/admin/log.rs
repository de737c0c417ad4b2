//! `/log`: changes the level of the gateway's own log while it runs.
//!
//! An operator who looks for a fault needs debug lines now, on one gateway, and not in the file
//! that all of them share. The change lasts until the next one, until `log.level` changes by a
//! reload, or until the process ends. This module does not know: what is logged.

use http::StatusCode;

use super::call::Call;
use super::query;
use super::reply::{Reply, text};
use crate::pipeline::snapshot::Shared;
use crate::telemetry::set_level;
use witgate_config::check_level;
use witgate_http::text::quoted;

/// `level=LEVEL`; without it, the level of gateway.yaml.
pub(super) fn post(shared: &Shared, call: &Call<'_>) -> Reply {
    let level = match query::value(call.query, "level").transpose() {
        Ok(level) => level.unwrap_or_else(|| shared.snapshot.load().config.log.level.clone()),
        Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    match check_level(&level).and_then(|level| set_level(&level).map(|()| level)) {
        Ok(level) => text(StatusCode::OK, format!("the level is {level}\n")),
        Err(why) => text(StatusCode::BAD_REQUEST, format!("{}: {why}\n", quoted(&level))),
    }
}
