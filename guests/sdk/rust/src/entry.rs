//! The exports that `filter!` generates call these functions, which convert to and from the
//! bindings.
//!
//! This module does not know any particular filter.
#![allow(missing_docs)]

use crate::bindings::{log, types};
use crate::exchange::{Request, Response};
use crate::reply::{Action, Reply};

/// The handler of the request phase.
pub type OnRequest = fn(&mut Request) -> Result<Action, String>;

/// The handler of the response phase. The request is for reading: it is the request as all filters
/// left it.
pub type OnResponse = fn(&mut Response, &Request) -> Result<Action, String>;

/// The export `handle-request`.
pub fn handle_request(on_request: OnRequest) -> Result<types::RequestAction, String> {
    set_panic_hook();
    on_request(&mut { Request::CURRENT }).map(Into::into)
}

/// The export `handle-response`.
pub fn handle_response(on_response: OnResponse) -> Result<types::ResponseAction, String> {
    set_panic_hook();
    on_response(&mut { Response::CURRENT }, &Request::CURRENT).map(Into::into)
}

/// Logs the message and line of a panic, because a panic ends in a trap that carries neither. The
/// text is on one line, because the log escapes line breaks.
fn set_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("panic");
        // `SystemTime::now` and `Instant::now`, which do not say where they were called.
        let advice = if message.starts_with("time not implemented") { ": use witgate_filter::now()" } else { "" };
        let text = match panic.location() {
            Some(place) => format!("panic: {message}{advice} ({}:{}:{})", place.file(), place.line(), place.column()),
            None => format!("panic: {message}{advice}"),
        };
        log::write(log::Level::Error, &text);
    }));
}

impl From<Reply> for types::Response {
    fn from(reply: Reply) -> Self {
        Self { status: reply.status, headers: reply.headers, body: reply.body }
    }
}

impl From<Action> for types::RequestAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Proceed => Self::Proceed,
            Action::Reply(reply) => Self::Respond(reply.into()),
        }
    }
}

impl From<Action> for types::ResponseAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Proceed => Self::Proceed,
            Action::Reply(reply) => Self::Replace(reply.into()),
        }
    }
}
