//! Pieces of encoding that several passes share.
//!
//! This module does not know: any pass.

use std::convert::Infallible;

use wasm_encoder::{Function, Instruction};

/// The body of a function that only traps.
pub(super) fn trap_body() -> Function {
    let mut body = Function::new([]);
    body.instruction(&Instruction::Unreachable).instruction(&Instruction::End);
    body
}

/// Pushes all parameters of the function, to forward them to another function.
pub(super) fn load_parameters(body: &mut Function, parameters: u32) {
    for parameter in 0..parameters {
        body.instruction(&Instruction::LocalGet(parameter));
    }
}

/// An error of the encoder as an error of this crate.
pub(super) fn reencode_error(error: wasm_encoder::reencode::Error<Infallible>) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}
