//! Writes lines to the gateway's log, which adds the name of the filter and the id of the
//! exchange.
//!
//! A line is cut after 4 KiB. Lines after the 64th of a call are dropped.
//!
//! This module does not know where the lines go.

use crate::host::log::write;

pub use crate::bindings::log::Level;

/// Writes information for the author of the filter.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes an event of normal operation.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a condition that an operator should look at.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes a failure.
pub fn error(message: &str) {
    write(Level::Error, message);
}
