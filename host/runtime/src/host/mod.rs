//! The functions that a guest can call, with one file per interface of `wit/`.
//!
//! Each function is a few lines over the exchange and the journal of the call. A reader never
//! blocks, and fails only if the guest breaks the contract (a body that it did not declare, the
//! response in the request phase). That ends the call with a message.
//! This module does not know: how instances are created, what happens after the call.

mod access;
mod clock;
mod config;
mod crypto;
mod exchange;
mod fields;
mod keyvalue;
mod limiter;
mod log;
mod outbound;
mod random;
mod request;
mod request_edit;
mod response;
mod types;
mod wasi;
