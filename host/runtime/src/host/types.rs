//! `types`: the types that the other interfaces share. It has no functions.
//!
//! This module does not know: who uses the types.

use crate::bindings::witgate::gateway::types;
use crate::filter::CallState;

impl types::Host for CallState {}
