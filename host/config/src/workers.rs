//! `workers:`: the number of serving threads.

use crate::yaml::{Section, Value};

const WORKERS_MAX: usize = 256;

pub(crate) fn read(top: &Section) -> usize {
    if let Some(Value::Scalar { text, .. }) = top.get("workers").map(|node| &node.value)
        && text == "auto"
    {
        top.error_at(&["workers"], "remove the key: by default each core has a thread");
        return cores();
    }
    top.number("workers", 1, WORKERS_MAX).unwrap_or_else(cores)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX)
}
