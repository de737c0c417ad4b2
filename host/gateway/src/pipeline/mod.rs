//! The life of one exchange: `exchange` is the sequence of steps, and each other file is one step.
//!
//! A step does not import another step; `exchange` passes results on. `snapshot` holds the state
//! that all steps read. This module does not know: sockets, WebAssembly.

pub mod basic_auth;
pub mod compress;
pub mod cors;
mod debug;
pub mod exchange;
pub mod filters;
pub mod forward;
pub mod forward_auth;
pub mod https;
pub mod jwt;
pub mod limits;
pub mod mirror;
pub mod normalize;
pub mod policies;
pub mod rate_limit;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod route;
pub mod snapshot;
pub mod trailers;
