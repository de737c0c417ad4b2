//! Everything that touches WebAssembly: the only place that names wasmtime.
//!
//! Read in this order: `engine` (how code is run and memory pooled), `clock` (its ticks), `compiler` (its other half), `component` (what a file claims to be), `pool` (a filter ready
//! to be instantiated), `instance` (one call), `bounds` (its limits), `ended` (its instance's end), `reuse` (what is kept for the next call where the operator
//! granted that), `capabilities` (what the guest can ask of the host), `bindings` (generated).
//! Must not know: routes, upstreams, listeners, where files come from.

mod bindings;
mod bounds;
mod capabilities;
mod clock;
pub mod compiler;
pub mod component;
pub mod ended;
pub mod engine;
pub mod instance;
pub mod pool;
pub mod reuse;
