//! `/drain`: the gateway drains as after SIGTERM.
//!
//! The command sends that signal to this process, so both have the same effect. This module does
//! not know: what draining means.

use http::StatusCode;
use rustix::process::{Signal, getpid, kill_process};

use super::call::Call;
use super::reply::{Reply, text};
use crate::pipeline::snapshot::Shared;

pub(super) fn post(_: &Shared, _: &Call<'_>) -> Reply {
    match kill_process(getpid(), Signal::TERM) {
        Ok(()) => text(StatusCode::OK, "draining\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the signal cannot be sent: {error}\n")),
    }
}
