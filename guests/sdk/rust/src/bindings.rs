//! The bindings that `wit-bindgen` generates from `wit/`.
//!
//! The imports are generated once, and the exports in one module per phase. A filter with both
//! phases uses both modules: the component encoder merges the two worlds, and keeps only the
//! imports that the code uses.
//!
//! Builds outside Wasm use the types of this module, and the functions of `fake`.
//!
//! This module does not know any particular filter.
#![allow(missing_docs, clippy::all)]

pub mod imports {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "package witgate:sdk; world imports {
            import witgate:gateway/request@0.1.0;
            import witgate:gateway/request-edit@0.1.0;
            import witgate:gateway/response@0.1.0;
            import witgate:gateway/exchange@0.1.0;
            import witgate:gateway/log@0.1.0;
            import witgate:gateway/config@0.1.0;
            import witgate:gateway/clock@0.1.0;
            import witgate:gateway/random@0.1.0;
            import witgate:gateway/keyvalue@0.1.0;
            import witgate:gateway/limiter@0.1.0;
            import witgate:gateway/http@0.1.0;
            import witgate:gateway/crypto@0.1.0;
        }",
        world: "witgate:sdk/imports",
        generate_all,
    });
}

pub use imports::witgate::gateway::{
    clock, config, crypto, exchange, http, keyvalue, limiter, log, random, request, request_edit, response, types,
};

macro_rules! world {
    ($module:ident, $world:literal, $export:literal, { $($own:tt)* }) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../../wit",
                world: $world,
                pub_export_macro: true,
                export_macro_name: $export,
                with: {
                    "witgate:gateway/types@0.1.0": crate::bindings::types,
                    "witgate:gateway/request@0.1.0": crate::bindings::request,
                    $($own)*
                    "witgate:gateway/exchange@0.1.0": crate::bindings::exchange,
                    "witgate:gateway/log@0.1.0": crate::bindings::log,
                    "witgate:gateway/config@0.1.0": crate::bindings::config,
                    "witgate:gateway/clock@0.1.0": crate::bindings::clock,
                    "witgate:gateway/random@0.1.0": crate::bindings::random,
                },
            });
        }
    };
}
world!(request_filter, "request-filter", "export_request_filter", {
    "witgate:gateway/request-edit@0.1.0": crate::bindings::request_edit,
});
world!(response_filter, "response-filter", "export_response_filter", {
    "witgate:gateway/response@0.1.0": crate::bindings::response,
});
