//! The `witgate` binary: reads the command line and hands over to `cli`.

/// Many small allocations of a few threads: mimalloc saves a few percent of a request over the system's allocator (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    witgate::cli::main()
}
