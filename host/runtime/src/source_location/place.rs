//! A place in an author's source, and the bound on the search for it.
//!
//! This module does not know: interpreters.

use std::fmt;

/// The most frames that a walk passes.
pub(super) const FRAMES_MAX: usize = 4096;

/// A line of a source file, and the function. Its name is empty for QuickJS.
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) function: String,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)?;
        if self.function.is_empty() { Ok(()) } else { write!(formatter, " in {}", self.function) }
    }
}
