//! Compile limits: a filter above them is refused with the limit named, and requests on the same
//! gateway are served meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::wat::{responder, with_functions_of};
use harness::{wait_until, wait_up_to};
use rustix::thread::sched_setaffinity;

use super::process::{first_core_and_rest, pin_to_core};
use super::{COMPILE_MAX, idle_latencies, latencies, resident_mib, responds_with, start};

/// How often a bomb replaces the filter in one round.
const BOMBS: usize = 10;
const ROUNDS: usize = 5;

#[test]
fn compile_bombs_are_refused_with_the_limit_named() -> Result<()> {
    let gateway = start("")?;
    let many = with_functions_of(std::iter::repeat_n(0, 100_000))?;
    let large = with_functions_of([7_500_000])?;
    // The gateway gets a core of its own, so that client and server do not compete for it.
    let [first, rest] = first_core_and_rest()?;
    pin_to_core(gateway.id(), &first)?;
    sched_setaffinity(None, &rest)?;
    println!("100,000 functions: {} bytes; one function: {} bytes", many.len(), large.len());
    let bombs = [
        ("many functions", many, "the component has 100002 functions, above the limit of 50000 (compile.functions)"),
        ("one large function", large, "bytes, above the limit of 1048576 (compile.function_bytes)"),
    ];
    let mut p99: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        p99[0].push(idle_latencies(&gateway)?.1);
        for (at, (name, bomb, reason)) in bombs.iter().enumerate() {
            // Write the files first, so that the latencies show only the gateway's work.
            let names: Vec<String> = (0..BOMBS).map(|at| format!(".bomb-{at}")).collect();
            for name in &names {
                std::fs::write(gateway.path(name), bomb)?;
            }
            let before = gateway.logged("was refused").len();
            let seen = latencies(&gateway, || {
                for (at, bomb) in names.iter().enumerate() {
                    std::fs::rename(gateway.path(bomb), gateway.path("f.wasm"))?;
                    wait_until(name, || gateway.logged("was refused").len() > before + at);
                }
                Ok(())
            })?;
            let line = gateway.logged("was refused").pop().unwrap_or_default();
            ensure!(line.contains("\"reason\":\"limits\"") && line.contains(reason), "{line}");
            p99[at + 1].push(seen.1);
        }
    }
    for (what, mut seen) in ["quiet", bombs[0].0, bombs[1].0].into_iter().zip(p99) {
        seen.sort_unstable();
        println!("{what}: P99 {:?}, median of {ROUNDS} rounds {:?}", seen, seen[ROUNDS / 2]);
    }
    println!("{:.0} MiB RSS", resident_mib(&gateway)?);
    Ok(())
}

#[test]
fn a_compilation_above_its_limits_is_aborted() -> Result<()> {
    for (limits, reason) in [
        ("compile: {memory: 256MiB}", "compiling needs more than 256 MiB of memory"),
        // The limit is of CPU time or, on a busy machine, of wall-clock time.
        ("compile: {time: 1s}", "(compile.time)"),
    ] {
        let gateway = start(limits)?;
        // The size is within its limits, and the compilation takes some seconds.
        let bytes = with_functions_of(std::iter::repeat_n(500_000, 8))?;
        let before = idle_latencies(&gateway)?;
        let seen = latencies(&gateway, || {
            gateway.replace("f.wasm", &bytes)?;
            wait_up_to(COMPILE_MAX, reason, || !gateway.logged("was refused").is_empty());
            Ok(())
        })?;
        let line = gateway.logged("was refused").pop().unwrap_or_default();
        ensure!(line.contains("\"reason\":\"limits\"") && line.contains(reason), "{line}");
        println!("{limits}: P50 and P99 without a compilation {before:?}, during it {seen:?}");
        gateway.replace("f.wasm", responder(200, None, "two")?)?;
        wait_until("a valid filter is served afterwards", || responds_with(&gateway, "two"));
    }
    Ok(())
}
