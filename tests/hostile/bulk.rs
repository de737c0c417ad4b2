//! One instruction that fills or copies memory or a table does not yield. Its time is bounded by
//! the filter's memory and by the size of tables, and its neighbours wait that long at most.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::Setup;
use harness::wat::module;

use super::attack;

/// No neighbour may wait longer, even on a busy machine. SECURITY.md has the usual times.
const NEIGHBOUR_MAX: Duration = Duration::from_secs(5);
const PAGES_PER_MIB: usize = 16;

/// Declarations and code of one instruction over `mib` of memory that was not touched before.
fn operations(mib: usize) -> [(&'static str, String, String); 4] {
    let (bytes, half) = ((mib << 20) - 65536, mib << 19);
    let grow = format!("(drop (memory.grow (i32.const {})))", mib * PAGES_PER_MIB - 3);
    let table = "(table $t 19000 funcref)".to_owned();
    [
        (
            "memory.fill",
            String::new(),
            format!("{grow} (memory.fill (i32.const 65536) (i32.const 1) (i32.const {bytes}))"),
        ),
        (
            "memory.copy",
            String::new(),
            format!("{grow} (memory.copy (i32.const {half}) (i32.const 0) (i32.const {half}))"),
        ),
        ("table.fill", table.clone(), "(table.fill $t (i32.const 0) (ref.null func) (i32.const 19000))".into()),
        ("table.copy", table, "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 18999))".into()),
    ]
}

#[test]
fn one_bulk_instruction_is_bounded_by_the_memory_of_its_filter() -> Result<()> {
    println!("| instruction | memory | status | took ms | slowest neighbour ms |\n|---|---|---|---|---|");
    for mib in [4, 60, 250] {
        for (name, declarations, code) in operations(mib) {
            let yaml = format!(
                "upstreams: {{echo: {{builtin: echo}}}}\ntimeouts: {{filters: 7s}}\n\
                 filters: {{hostile: {{source: hostile.wasm, timeout: 6s, memory: {}MiB}}}}\nroutes:\n\
                 - {{name: hostile, match: {{path: /hostile}}, filters: [hostile], upstream: echo}}\n\
                 - {{name: control, match: {{path: /control}}, upstream: echo}}",
                mib + 4
            );
            let filter = module(&declarations, &format!("{code} (i32.const 0)"))?;
            let gateway = Setup::new(&yaml)?.workers(1).with("hostile.wasm", filter)?.start()?;
            let result = attack(&gateway)?;
            println!(
                "| {name} | {mib} MiB | {} | {:.1} | {:.1} |",
                result.status,
                result.took.as_secs_f64() * 1e3,
                result.slowest_neighbour.as_secs_f64() * 1e3
            );
            ensure!(result.status == 200, "{name} of {mib} MiB: {} {}", result.status, result.body);
            ensure!(result.slowest_neighbour < NEIGHBOUR_MAX, "{name} of {mib} MiB: {:?}", result.slowest_neighbour);
        }
    }
    Ok(())
}
