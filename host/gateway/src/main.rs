//! The `witgate` binary.
//!
//! Allocator: mimalloc. Gain: a few percent of a request's CPU time, because a request makes many
//! small allocations on one thread (docs/performance.md). Price: freed memory stays with its thread
//! until `process::memory` releases it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    witgate::cli::main()
}
