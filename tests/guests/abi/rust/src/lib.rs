//! The job of `just bench-abi` in Rust, in the shape that the feature names, each in a file of its own: one world, one component.
//!
//! With the heap of the SDK, so that a call costs what it costs a real filter. Must not know: the gateway.

#[path = "../../../../../guests/sdk/rust/src/heap.rs"]
mod heap;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "plain")]
mod plain;
#[cfg(feature = "value")]
mod value;

struct Filter;
