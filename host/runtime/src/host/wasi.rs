//! WASI 0.2 for filters that were granted it: clocks and random numbers, but no files, sockets,
//! environment or arguments.
//!
//! This module does not know: how WASI is linked.

use wasmtime_wasi::{WasiCtxView, WasiView};

use crate::filter::CallState;

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // WASI is linked only if it is granted. If that failed, the default context grants nothing.
        let (ctx, table) = self.wasi.get_or_insert_with(Default::default);
        WasiCtxView { ctx, table }
    }
}
