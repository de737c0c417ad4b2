//! Rust types and traits generated from `wit/`: nothing is written by hand here.
//!
//! One world (`host`) holds everything that the gateway can offer; which parts a filter gets is decided by the linker (`pool.rs`).
//! Imports may trap (a broken limit ends the call); exports are called on a fiber, so that a long call gives way to others.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "host",
    imports: { default: trappable },
    exports: { default: async },
});
