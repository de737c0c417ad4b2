//! Write witgate filters in Rust: two small objects over the functions of `wit/`, and a macro that exports the handlers.
//!
//! ```
//! use witgate_filter::{Action, Request, config, reply};
//!
//! fn on_request(request: &mut Request) -> Result<Action, String> {
//!     if request.header("x-api-key") != config::get("key") {
//!         return Ok(reply(401, "who are you?"));
//!     }
//!     request.set_header("x-user", "alice");
//!     Ok(Action::Proceed)
//! }
//!
//! witgate_filter::filter!(request: on_request);
//! ```
//!
//! The objects hold nothing: every method is one call of the gateway, which is where the rules and bounds stand (`wit/request.wit`,
//! `wit/response.wit`, `wit/services.wit`). Outside Wasm the same functions work on a fake of the exchange ([`testing`]), so a filter is tested with
//! `cargo test`. Must not know: any particular filter.
//!
//! `Err` is the filter's own failure: its text goes to the gateway's log, the client gets 502 (or, under `on_error: open`, the request goes
//! on without this filter's edits). A panic ends the same way, its message and line in the log. To refuse a request, [`reply`].

#[doc(hidden)]
pub mod bindings;
mod exchange;
mod reply;

#[cfg(not(target_arch = "wasm32"))]
mod fake;
#[cfg(all(target_arch = "wasm32", feature = "heap"))]
mod heap;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

/// Where the gateway's functions come from: the gateway itself, or the fake of this thread.
#[cfg(target_arch = "wasm32")]
use bindings as host;
#[cfg(not(target_arch = "wasm32"))]
use fake as host;

pub use bindings::types::{Certificate, ClientInfo, Tls};
pub use exchange::{Request, Response};
pub use host::{clock, config, keyvalue, random};
pub use reply::{Action, Reply, reply, reply_json};

pub mod log {
    //! Lines for the gateway's log: they appear there with the filter's name and the exchange's id.
    use crate::host::log::write;

    pub use crate::bindings::log::Level;

    /// What only matters to who develops the filter.
    pub fn debug(message: &str) {
        write(Level::Debug, message);
    }

    /// What an operator may want to know.
    pub fn info(message: &str) {
        write(Level::Info, message);
    }

    /// What an operator should look at.
    pub fn warn(message: &str) {
        write(Level::Warn, message);
    }

    /// What went wrong although the filter goes on.
    pub fn error(message: &str) {
        write(Level::Error, message);
    }
}

/// Exports a filter's handlers: `filter!(request: f)`, `filter!(response: g)` or `filter!(request: f, response: g)`. Which ones there are
/// must agree with filter.toml.
///
/// `f` is `fn(&mut Request) -> Result<Action, String>`, `g` is `fn(&mut Response, &Request) -> Result<Action, String>`.
#[macro_export]
macro_rules! filter {
    (request: $on_request:path) => {
        const _: $crate::OnRequest = $on_request;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Filter;
            impl $crate::bindings::request_filter::exports::witgate::gateway::request_handler::Guest for Filter {
                fn handle_request() -> Result<$crate::bindings::types::RequestAction, String> {
                    $crate::bindings::handle_request($on_request)
                }
            }
            $crate::bindings::request_filter::export_request_filter!(
                Filter with_types_in $crate::bindings::request_filter
            );
        };
    };
    (response: $on_response:path) => {
        const _: $crate::OnResponse = $on_response;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Filter;
            impl $crate::bindings::response_filter::exports::witgate::gateway::response_handler::Guest for Filter {
                fn handle_response() -> Result<$crate::bindings::types::ResponseAction, String> {
                    $crate::bindings::handle_response($on_response)
                }
            }
            $crate::bindings::response_filter::export_response_filter!(
                Filter with_types_in $crate::bindings::response_filter
            );
        };
    };
    (request: $on_request:path, response: $on_response:path) => {
        $crate::filter!(request: $on_request);
        $crate::filter!(response: $on_response);
    };
}

/// A request handler.
pub type OnRequest = fn(&mut Request) -> Result<Action, String>;

/// A response handler. The request is there to read: as it went to the upstream.
pub type OnResponse = fn(&mut Response, &Request) -> Result<Action, String>;
