//! The functions of the gateway: the bindings in Wasm, the fake elsewhere.
//!
//! This module does not know what the functions do.

#[cfg(target_arch = "wasm32")]
use crate::bindings as functions;
#[cfg(not(target_arch = "wasm32"))]
use crate::fake as functions;

pub use functions::{clock, config, crypto, http, keyvalue, limiter, random};
pub(crate) use functions::{exchange, log, request, request_edit, response};
