//! Write witgate filters in Rust: two small objects over the functions of `wit/`, and a macro that exports the handlers.
//!
//! ```ignore
//! use witgate_filter::{Action, Request, reply};
//!
//! fn on_request(request: &mut Request) -> Result<Action, String> {
//!     match request.header("x-api-key") {
//!         Some(_) => Ok(Action::Proceed),
//!         None => Ok(reply(401, "who are you?")),
//!     }
//! }
//! witgate_filter::filter!(request: on_request);
//! ```
//!
//! The objects hold nothing: every method is one call of the host. Outside Wasm the same methods work on a fake of the exchange
//! ([`testing`]), so a filter is tested with `cargo test`. Must not know: any particular filter.

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[path = "wasm.rs"]
mod host;
#[cfg(not(target_arch = "wasm32"))]
#[path = "fake.rs"]
mod host;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing {
    //! A fake of the exchange for unit tests.
    pub use crate::host::Fake;
}

/// What becomes of a request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Go on, with the edits made.
    Proceed,
    /// Answer with this; edits are dropped.
    Reply(Reply),
}

/// An answer made by the filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// Without `content-length`: the gateway writes it.
    pub headers: Vec<(String, String)>,
    /// At most 8 MiB.
    pub body: Vec<u8>,
}

/// A plain-text answer.
pub fn reply(status: u16, text: &str) -> Action {
    Action::Reply(Reply { status, headers: vec![("content-type".into(), "text/plain; charset=utf-8".into())], body: text.into() })
}

/// A JSON answer; `json` is its text.
pub fn reply_json(status: u16, json: &str) -> Action {
    Action::Reply(Reply { status, headers: vec![("content-type".into(), "application/json".into())], body: json.into() })
}

/// The value of a key of the filter's configuration; what is not a string comes as JSON text.
pub fn config(key: &str) -> Option<String> {
    host::config(key)
}

/// Writes a line to the gateway's log.
pub fn log(message: &str) {
    host::log(message);
}

/// A note of the exchange: how the phases and filters speak to each other.
pub fn note(name: &str) -> Option<String> {
    host::note(name)
}

/// Sets a note of the exchange.
pub fn set_note(name: &str, value: &str) {
    host::set_note(name, value);
}

/// The peer's IP address.
pub fn client_ip() -> String {
    host::client_ip()
}

/// The request: readable in both phases, changed only in the request phase. The rules are those of `wit/request.wit`.
#[derive(Debug)]
pub struct Request(());

/// The response; only in the response phase. The rules are those of `wit/response.wit`.
#[derive(Debug)]
pub struct Response(());

impl Request {
    #[doc(hidden)]
    pub fn current() -> Self {
        Self(())
    }
    /// `GET`, `POST`, …
    pub fn method(&self) -> String {
        host::method()
    }
    /// The path, percent-encoded.
    pub fn path(&self) -> String {
        host::path()
    }
    /// What follows the `?`.
    pub fn query(&self) -> Option<String> {
        host::query()
    }
    /// One field, lines joined.
    pub fn header(&self, name: &str) -> Option<String> {
        host::request_header(name)
    }
    /// All fields.
    pub fn headers(&self) -> Vec<(String, String)> {
        host::request_headers()
    }
    /// The whole body; needs `body = "buffer"` in filter.toml.
    pub fn body(&self) -> Vec<u8> {
        host::request_body()
    }
    /// This one value in the place of all.
    pub fn set_header(&mut self, name: &str, value: &str) {
        host::set_request_header(name, value);
    }
    /// One more line.
    pub fn append_header(&mut self, name: &str, value: &str) {
        host::append_request_header(name, value);
    }
    /// No line.
    pub fn remove_header(&mut self, name: &str) {
        host::remove_request_header(name);
    }
    /// Another path for the upstream.
    pub fn set_path(&mut self, path: &str) {
        host::set_path(path);
    }
    /// Another body.
    pub fn set_body(&mut self, body: &[u8]) {
        host::set_request_body(body);
    }
}

impl Response {
    #[doc(hidden)]
    pub fn current() -> Self {
        Self(())
    }
    /// 200 to 599.
    pub fn status(&self) -> u16 {
        host::status()
    }
    /// One field, lines joined.
    pub fn header(&self, name: &str) -> Option<String> {
        host::response_header(name)
    }
    /// All fields.
    pub fn headers(&self) -> Vec<(String, String)> {
        host::response_headers()
    }
    /// The whole body; needs `body = "buffer"` in filter.toml.
    pub fn body(&self) -> Vec<u8> {
        host::response_body()
    }
    /// Another status.
    pub fn set_status(&mut self, status: u16) {
        host::set_status(status);
    }
    /// This one value in the place of all.
    pub fn set_header(&mut self, name: &str, value: &str) {
        host::set_response_header(name, value);
    }
    /// One more line.
    pub fn append_header(&mut self, name: &str, value: &str) {
        host::append_response_header(name, value);
    }
    /// No line.
    pub fn remove_header(&mut self, name: &str) {
        host::remove_response_header(name);
    }
    /// Another body.
    pub fn set_body(&mut self, body: &[u8]) {
        host::set_response_body(body);
    }
}

/// Exports a filter's handlers: `filter!(request: f)`, `filter!(response: g)` or `filter!(request: f, response: g)`.
///
/// `f` is `fn(&mut Request) -> Result<Action, String>`, `g` is `fn(&mut Response, &Request) -> Result<Action, String>`.
#[macro_export]
macro_rules! filter {
    (request: $on_request:path) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Filter;
            impl $crate::bindings::request_filter::exports::witgate::gateway::request_handler::Guest for Filter {
                fn handle_request() -> Result<$crate::bindings::types::RequestAction, String> {
                    $crate::bindings::set_panic_hook();
                    $on_request(&mut $crate::Request::current()).map(Into::into)
                }
            }
            $crate::bindings::request_filter::export_request_filter!(Filter with_types_in $crate::bindings::request_filter);
        };
    };
    (response: $on_response:path) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Filter;
            impl $crate::bindings::response_filter::exports::witgate::gateway::response_handler::Guest for Filter {
                fn handle_response() -> Result<$crate::bindings::types::ResponseAction, String> {
                    $crate::bindings::set_panic_hook();
                    $on_response(&mut $crate::Response::current(), &$crate::Request::current()).map(Into::into)
                }
            }
            $crate::bindings::response_filter::export_response_filter!(Filter with_types_in $crate::bindings::response_filter);
        };
    };
    (request: $on_request:path, response: $on_response:path) => {
        $crate::filter!(request: $on_request);
        $crate::filter!(response: $on_response);
    };
}
