//! WASI 0.2 for filters that were granted it: clocks and random numbers, but no files, sockets,
//! environment or arguments. With the grant `http` also `wasi:http`.
//!
//! This module does not know: how WASI is linked, which requests are allowed.

use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::filter::{CallState, Wasi};
use crate::wasi_held::{HeldBytes, HoldsBytes};

impl CallState {
    /// WASI is linked only if it is granted. If that failed, this grants nothing.
    fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(Wasi::new)
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Wasi { ctx, table, .. } = self.wasi();
        WasiCtxView { ctx, table }
    }
}

impl WasiHttpView for CallState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let Wasi { table, http, outgoing, .. } = self.wasi();
        WasiHttpCtxView { ctx: http, table, hooks: outgoing }
    }
}

impl HoldsBytes for CallState {
    fn held(&mut self) -> &mut HeldBytes {
        &mut self.wasi().held
    }
}
