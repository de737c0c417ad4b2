//! A command as its handler gets it.
//!
//! This module does not know: paths, who may give which command.

use crate::releases::decision::Who;

/// A command.
pub(super) struct Call<'a> {
    /// What `{name}` in the path stands for.
    pub(super) name: &'a str,
    /// The query of the request.
    pub(super) query: &'a str,
    /// Who gives it.
    pub(super) who: Who,
}
