//! A component that answers requests itself: it exports `wasi:http/incoming-handler`.
//!
//! Its limits and its isolation are those of filters: a fresh instance for each request, memory,
//! concurrent calls, and fibers that yield to other connections. It may import WASI 0.2 and
//! `wasi:http`, without files and sockets; `wasi_http.rs` decides about requests that it sends.
//!
//! `linked` is a component that is ready, with the data of its stores. `call` answers a request:
//! `running` is the call, `request_body` and `response_body` pass the bodies on, and `output` logs
//! what it prints. This module does not know: upstreams, retries, where files come from.

mod call;
mod loaded;
mod output;
mod request_body;
mod response_body;
mod running;

pub use crate::wasi_http::Holder;
pub use call::{call, try_instantiate};
pub use loaded::{HttpComponent, HttpComponentSettings, check_imports};
