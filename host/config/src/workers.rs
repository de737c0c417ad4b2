//! `workers:`: the number of serving threads.

use crate::yaml::Section;

const WORKERS_MAX: usize = 256;

pub(crate) fn read(top: &Section) -> usize {
    top.number("workers", 1, WORKERS_MAX).unwrap_or_else(cores)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX)
}
