//! Write witgate filters in Rust, with two objects over the functions of `wit/` and a macro that
//! exports the handlers.
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
//! The objects hold no state: each method calls one function of the gateway. The WIT documents the
//! rules and bounds of each function (`wit/request.wit`, `wit/response.wit`, `wit/services.wit`).
//! Outside Wasm, the functions work on a fake of the exchange ([`testing`]), so `cargo test` tests
//! a filter.
//!
//! A handler returns `Err` only if the filter itself fails, and [`reply`] to refuse a request.
//! After an `Err` or a panic the gateway discards the edits, logs the message and answers with
//! status 502. With `on_error: open` in gateway.yaml, the exchange continues without this filter.
//!
//! A filter has no operating system. [`now`], [`fill_random`], [`HashMap`] and [`println!`] take
//! the place of what the standard library lacks there.
//!
//! This crate does not know any particular filter.

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod entry;
mod exchange;
mod host;
mod http_request;
pub mod log;
mod reply;
mod system;

#[cfg(not(target_arch = "wasm32"))]
mod fake;
#[cfg(all(target_arch = "wasm32", feature = "heap"))]
mod heap;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use bindings::types::{Certificate, ClientInfo, Tls};
pub use entry::{OnRequest, OnResponse};
pub use exchange::{Request, Response};
pub use host::{clock, config, crypto, http, keyvalue, limiter, random};
pub use reply::{Action, Reply, reply, reply_json};
pub use system::{HashMap, HashSet, RandomState, fill_random, now};

/// Exports the handlers of a filter: `filter!(request: f)`, `filter!(response: g)` or
/// `filter!(request: f, response: g)`. The phases must be those of filter.toml.
///
/// `f` is an [`OnRequest`], `g` is an [`OnResponse`].
#[macro_export]
macro_rules! filter {
    (request: $on_request:path) => {
        const _: $crate::OnRequest = $on_request;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Filter;
            impl $crate::bindings::request_filter::exports::witgate::gateway::request_handler::Guest for Filter {
                fn handle_request() -> Result<$crate::bindings::types::RequestAction, String> {
                    $crate::entry::handle_request($on_request)
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
                    $crate::entry::handle_response($on_response)
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
