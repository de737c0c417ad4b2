//! The corpus: requests as data, a file for each part of the syntax. Bytes are written as they go over the wire.

mod chunks;
pub(crate) mod faults;
mod fields;
mod heads;
mod host;
mod lengths;
mod lines;
mod paths;
mod targets;
mod transfer;

use super::case::Case;

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let all = [
        transfer::cases(),
        lengths::cases(),
        chunks::cases(),
        lines::cases(),
        heads::cases(),
        targets::cases(),
        host::cases(),
        fields::cases(),
        paths::cases(),
    ];
    all.into_iter().flatten().collect()
}
