//! An exchange (a request and its response) as filters see and edit it.
//!
//! Edits are data: a call of a filter records them in a [`Journal`], its reads go through the
//! journal, and [`Exchange::apply`] applies them only if the call ended well. So a filter that
//! fails half-way has changed nothing. The module is pure: no I/O, no clock.
//! This module does not know: WebAssembly, how routes match, sockets.

mod checked;
mod client;
mod journal;
mod message;
mod passed;

pub use checked::Reply;
pub(crate) use checked::{
    Refusal, checked_body, checked_name, checked_reply, checked_status, checked_target, checked_value,
};
pub use client::{Certificate, Client, TlsInfo};
pub use journal::Journal;
pub(crate) use journal::{Edit, HELD_BYTES_MAX};
pub use message::{Exchange, ExchangeNote, LogLine, Request, Response, Upgrade, id_digits, id_text};
pub use passed::Passed;
