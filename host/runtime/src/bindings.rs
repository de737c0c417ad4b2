//! Rust types and traits that wasmtime generates from `wit/`. Nothing is written by hand.
//!
//! One world (`host`) holds every interface that the gateway offers; the linker (`filter.rs`)
//! decides which of them a filter gets. Imports may trap, which ends the call. Exports run on a
//! fiber, so that a long call can yield. The key-value store and the limiter may be remote, a call
//! to another service waits, and so does a long derivation: their functions can suspend that fiber.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "host",
    imports: {
        "witgate:gateway/keyvalue": async | trappable,
        "witgate:gateway/limiter": async | trappable,
        "witgate:gateway/http": async | trappable,
        "witgate:gateway/crypto.derive": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});
