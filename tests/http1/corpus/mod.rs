//! The corpus: requests as data, one file for each part of the syntax. Bytes are written exactly as
//! they are sent.

mod chunked;
mod content_length;
mod field_lines;
mod fields;
mod host;
mod paths;
mod request_lines;
mod targets;
mod transfer_encoding;
pub(crate) mod upstream_faults;

use super::case::Case;

/// Returns all cases.
pub(crate) fn all() -> Vec<Case> {
    let all = [
        transfer_encoding::cases(),
        content_length::cases(),
        chunked::cases(),
        field_lines::cases(),
        request_lines::cases(),
        targets::cases(),
        host::cases(),
        fields::cases(),
        paths::cases(),
    ];
    all.into_iter().flatten().collect()
}
