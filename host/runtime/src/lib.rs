//! Runs filters. This is the only crate that names wasmtime.
//!
//! From the file to the call: `component` reads what a file declares, `proposals` limits what its
//! code may use, `compiler` makes machine code of it, `engine` maps that code, `filter` links it
//! under the operator's `settings`, `instance` runs it, and `call` is one call of it.
//! `http_component` does the same for a component that answers requests itself. `host` has the
//! functions that a guest can call; `keyvalue`, `limiter` and `outbound` are the services that the
//! gateway provides for them, `memory_store` is a key-value store, and `crypto` has algorithms for
//! guests and for the gateway. `replay` calls a second version with the same input and no effect,
//! and `profile` takes samples of calls.
//!
//! What makes a fresh instance per call cheap: `instance_cache` moves creation and drop out of the
//! call, `pool_range` finds the pool's memories, `fault_around` and `coalesce` reduce the work of
//! the kernel for their pages, and `clock` ticks only as often as calls need. After a call that
//! failed, `source_location` finds the author's line.
//! This crate does not know: routes, upstreams, listeners, where files come from.

mod bindings;
pub mod call;
mod capability_calls;
pub mod chunks;
mod clock;
mod coalesce;
pub mod compiler;
pub mod component;
pub mod crypto;
pub mod engine;
pub mod exchange;
pub mod failure;
mod fault_around;
pub mod filter;
mod host;
pub mod http_component;
mod instance;
pub mod instance_cache;
pub mod keyvalue;
pub mod limiter;
pub mod load_error;
mod log_limit;
pub mod memory_store;
pub mod outbound;
mod pool_range;
pub mod profile;
pub mod proposals;
pub mod replay;
mod sbom;
pub mod settings;
mod source_location;
mod stacks;
mod store_limits;
mod time_slices;
mod waiting;
mod wasi_held;
mod wasi_http;
