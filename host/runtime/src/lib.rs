//! Everything that touches WebAssembly: the only place that names wasmtime.
//!
//! Read in this order: `engine` (how code is run and memory pooled), `clock` (its ticks), `memories` (where the kernel has them), `fault_around` and `bridges` (what the kernel does with their pages), `compiler` (its other half), `component` (what a file claims to be), `pool` (a filter ready
//! to be instantiated), `instance` (one call), `limits` (its limits), `between` (an instance's end, and the next one's beginning), `reuse` (instances that wait for a call), `capabilities` (what the guest can ask of the host), `bindings` (generated).
//! Must not know: routes, upstreams, listeners, where files come from.

mod bindings;
mod clock;
mod coalesce;
pub mod compiler;
pub mod component;
pub mod engine;
mod fault_around;
pub mod filter;
mod host_functions;
pub mod instance;
pub mod instance_cache;
mod pool_range;
mod store_limits;

pub mod chunks;
pub mod exchange;
pub mod keyvalue;
pub mod load_error;
pub mod log_limit;
