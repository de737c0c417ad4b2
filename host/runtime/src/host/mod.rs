//! The functions that a guest can call, with one file per interface of `wit/`.
//!
//! Each function is a few lines over the exchange and the journal of the call. A reader never
//! blocks, and fails only if the guest breaks the contract (a body that it did not declare, the
//! response in the request phase). That ends the call with a message.
//! This module does not know: how instances are created, what happens after the call.

mod clock;
mod config;
mod exchange;
mod fields;
mod keyvalue;
mod log;
mod random;
mod request;
mod request_edit;
mod response;
mod wasi;

use witgate_http::error::FilterFailure;

use crate::bindings::witgate::gateway::types;
use crate::exchange::{Edit, Refusal};
use crate::failure::HostTrap;
use crate::filter::{CallState, Phase};

/// The interface `types` has no functions.
impl types::Host for CallState {}

impl CallState {
    /// Records an edit of the message of `phase`. Traps in the other phase.
    fn edit(&mut self, phase: Phase, make: impl FnOnce(&Self) -> Result<Edit, Refusal>) -> wasmtime::Result<()> {
        if self.phase != phase {
            let message = format!("it edits the {} in the {} phase", phase.label(), self.phase.label());
            return Err(HostTrap::new(FilterFailure::InvalidOutput, message).into());
        }
        let edit = make(self).map_err(HostTrap::from)?;
        self.journal.push(edit).map_err(|refusal| HostTrap::from(refusal).into())
    }
}

/// The trap for a body that filter.toml does not declare.
fn undeclared_body(phase: Phase) -> wasmtime::Error {
    let phase = phase.label();
    let message = format!(
        "it asks for the {phase} body in a phase that does not declare it: set `body = \"buffer\"` under [{phase}] in filter.toml"
    );
    HostTrap::new(FilterFailure::InvalidOutput, message).into()
}
