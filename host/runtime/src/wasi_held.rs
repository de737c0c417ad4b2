//! What a guest makes the gateway hold by `wasi:http`: header fields, the parts of requests, and
//! buffers of bodies. All that one call passes in counts, also as bodies in memory do, and a call
//! that exceeds a bound ends.
//!
//! The library bounds each `fields`, but neither their sum nor the text of an authority or a
//! method. So the functions that keep what a guest passes in are linked a second time, in front of
//! the library's, and count first. A guest that drops what it made gets nothing back before its
//! call ends: a counter is enough, because handlers need little of this. This module does not know:
//! limits of bodies that are sent, connections.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::{self, Host as _, HostFields as _, HostOutgoingRequest as _};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::p2::{HeaderError, add_only_http_to_linker_async};
use wasmtime_wasi_http::{FieldMap, WasiHttpView};
use witgate_http::body_budget::Arriving;
use witgate_http::error::FilterFailure;

use crate::exchange::HELD_BYTES_MAX;
use crate::failure::HostTrap;
use crate::wasi_http::{BODY_CHUNK_BYTES, Holder};

/// The interface with the functions that keep what they get.
const TYPES: &str = "wasi:http/types@0.2.12";
/// What a header field takes beside its name and value.
const FIELD_BYTES: usize = 64;
/// A body that is being written: the part that the guest writes, and one that waits for the reader.
const BODY_BYTES: usize = 2 * BODY_CHUNK_BYTES;
/// What most calls need: the body and the fields of one response. It counts in no budget, so such a
/// call takes no lock.
const FREE_BYTES: usize = BODY_BYTES + (8 << 10);

/// The bytes that the guest of one store passed in.
pub(crate) struct HeldBytes {
    bytes: usize,
    /// Counts those above [`FREE_BYTES`] in the budget of the exchange.
    counted: Arriving,
}

impl HeldBytes {
    /// Nothing, in no budget.
    pub(crate) fn none() -> Self {
        Self { bytes: 0, counted: Arriving::uncounted() }
    }

    /// For a call in an exchange. Handles of earlier calls of the store may still hold what they
    /// passed in.
    pub(crate) fn begin(&mut self, holder: &Holder) {
        let Holder { client, budget } = holder;
        self.counted = budget.as_ref().map_or_else(Arriving::uncounted, |budget| budget.arriving(*client));
    }

    fn add(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > HELD_BYTES_MAX {
            let message = format!(
                "it made the gateway hold more than {HELD_BYTES_MAX} bytes of header fields, requests and bodies of \
                 wasi:http"
            );
            return Err(HostTrap::new(FilterFailure::Limit, message).into());
        }
        let counted = self.counted.grow_to(self.bytes.saturating_sub(FREE_BYTES));
        counted.map_err(|exceeded| HostTrap::new(FilterFailure::Saturated, exceeded.to_string()).into())
    }

    /// Whether less than half of the bound is used. An instance without that room is dropped before
    /// a call meets the bound.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes <= HELD_BYTES_MAX / 2
    }
}

/// The data of a store whose guest may use `wasi:http`.
pub(crate) trait HoldsBytes: WasiHttpView + 'static {
    fn held(&mut self) -> &mut HeldBytes;

    /// Counts bytes before a function of the library keeps them.
    fn hold(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.held().add(bytes)
    }
}

/// Links `wasi:http`, with the functions that count.
pub(crate) fn link<T: HoldsBytes>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    add_only_http_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    link_fields(linker)?;
    link_requests(linker)?;
    link_bodies(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

type Fields = Resource<FieldMap>;
type Checked<T> = Result<T, types::HeaderError>;

fn link_fields<T: HoldsBytes>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[static]fields.from-list",
        |mut store: StoreContextMut<'_, T>, (entries,): (Vec<(String, Vec<u8>)>,)| {
            let data = store.data_mut();
            data.hold(entries.iter().map(|(name, value)| FIELD_BYTES + name.len() + value.len()).sum())?;
            let made = data.http().from_list(entries);
            Ok((checked(data, made)?,))
        },
    )?;
    types.func_wrap(
        "[method]fields.set",
        |mut store: StoreContextMut<'_, T>, (fields, name, values): (Fields, String, Vec<Vec<u8>>)| {
            let data = store.data_mut();
            data.hold(values.iter().map(|value| FIELD_BYTES + name.len() + value.len()).sum())?;
            let set = data.http().set(fields, name, values);
            Ok((checked(data, set)?,))
        },
    )?;
    types.func_wrap(
        "[method]fields.append",
        |mut store: StoreContextMut<'_, T>, (fields, name, value): (Fields, String, Vec<u8>)| {
            let data = store.data_mut();
            data.hold(FIELD_BYTES + name.len() + value.len())?;
            let appended = data.http().append(fields, name, value);
            Ok((checked(data, appended)?,))
        },
    )?;
    types.func_wrap("[method]fields.clone", |mut store: StoreContextMut<'_, T>, (fields,): (Fields,)| {
        let data = store.data_mut();
        // The copy is made when one of the two changes.
        let lines = data.http().table.get(&fields)?.iter();
        let bytes = lines.map(|(name, value)| FIELD_BYTES + name.as_str().len() + value.len()).sum();
        data.hold(bytes)?;
        Ok((data.http().clone(fields)?,))
    })
}

fn link_requests<T: HoldsBytes>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    type Request = Resource<HostOutgoingRequest>;
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut store: StoreContextMut<'_, T>, (request, method): (Request, types::Method)| {
            let data = store.data_mut();
            if let types::Method::Other(name) = &method {
                data.hold(name.len())?;
            }
            Ok((data.http().set_method(request, method)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut store: StoreContextMut<'_, T>, (request, path): (Request, Option<String>)| {
            let data = store.data_mut();
            data.hold(path.as_ref().map_or(0, String::len))?;
            Ok((data.http().set_path_with_query(request, path)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store: StoreContextMut<'_, T>, (request, authority): (Request, Option<String>)| {
            let data = store.data_mut();
            data.hold(authority.as_ref().map_or(0, String::len))?;
            Ok((data.http().set_authority(request, authority)?,))
        },
    )
}

fn link_bodies<T: HoldsBytes>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    type Body = Result<Resource<HostOutgoingBody>, ()>;
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]outgoing-request.body",
        |mut store: StoreContextMut<'_, T>, (request,): (Resource<HostOutgoingRequest>,)| {
            let data = store.data_mut();
            data.hold(BODY_BYTES)?;
            let body: Body = types::HostOutgoingRequest::body(&mut data.http(), request)?;
            Ok((body,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-response.body",
        |mut store: StoreContextMut<'_, T>, (response,): (Resource<HostOutgoingResponse>,)| {
            let data = store.data_mut();
            data.hold(BODY_BYTES)?;
            let body: Body = types::HostOutgoingResponse::body(&mut data.http(), response)?;
            Ok((body,))
        },
    )
}

/// The result for the guest. An error that is a trap ends the call.
fn checked<T, D: HoldsBytes>(data: &mut D, result: Result<T, HeaderError>) -> wasmtime::Result<Checked<T>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => data.http().convert_header_error(error).map(Err),
    }
}
