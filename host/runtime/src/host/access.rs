//! What a call may do in its phase: which message it edits, and whether it reads the body.
//!
//! This module does not know: how an edit is made.

use witgate_http::error::FilterFailure;

use crate::exchange::{Edit, Refusal};
use crate::failure::HostTrap;
use crate::filter::{CallState, Phase};

impl CallState {
    /// Records an edit of the message of `phase`. Traps in the other phase.
    pub(super) fn edit(
        &mut self,
        phase: Phase,
        make: impl FnOnce(&Self) -> Result<Edit, Refusal>,
    ) -> wasmtime::Result<()> {
        if self.phase != phase {
            let message = format!("it edits the {} in the {} phase", phase.label(), self.phase.label());
            return Err(HostTrap::new(FilterFailure::InvalidOutput, message).into());
        }
        let edit = make(self).map_err(HostTrap::from)?;
        self.journal.push(edit).map_err(|refusal| HostTrap::from(refusal).into())
    }
}

/// The trap for a body that filter.toml does not declare.
pub(super) fn undeclared_body(phase: Phase) -> wasmtime::Error {
    let phase = phase.label();
    let message = format!(
        "it asks for the {phase} body in a phase that does not declare it: set `body = \"buffer\"` under [{phase}] in filter.toml"
    );
    HostTrap::new(FilterFailure::InvalidOutput, message).into()
}
