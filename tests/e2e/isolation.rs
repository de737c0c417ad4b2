//! Isolation: no call sees what another call wrote to globals, memory or tables.
//!
//! Four filters look for traces of earlier calls and then leave some. Two threads and many
//! connections call them at once, so that different filters get the same pool slots. The test sends
//! 2,000 requests, `just isolation` 100,000. With `reuse` the same filters do find traces, which
//! proves that the test can fail.

use anyhow::{Context as _, Result, ensure};
use harness::wat::state_reporter;
use harness::{Client, Gateway, Setup};

const GUESTS: [&str; 3] = ["rust", "typescript", "python"];
const ROUTES: [&str; 4] = ["rust", "typescript", "python", "wat"];
const CONNECTIONS: usize = 8;
const REQUESTS: usize = 2000;

/// A filter that reports a global, memory with and without a data segment, the sizes of memory and
/// table, an empty and a filled table element, and then changes all of them.
fn wat() -> Result<Vec<u8>> {
    let fields = "(global $mark (mut i32) (i32.const 0)) (table $table 4 100 funcref) (func $noop)
        (elem (table $table) (i32.const 0) func $noop)";
    let found = [
        "(global.get $mark)",
        "(i32.load8_u (i32.const 5000))",
        "(i32.load8_u (i32.const 140000))",
        "(i32.sub (memory.size) (i32.const 3))",
        "(i32.sub (table.size $table) (i32.const 4))",
        "(i32.eqz (ref.is_null (table.get $table (i32.const 3))))",
        "(ref.is_null (table.get $table (i32.const 0)))",
    ];
    let after = "(global.set $mark (i32.const 1)) (i32.store8 (i32.const 5000) (i32.const 1)) (i32.store8 (i32.const 140000) (i32.const 1))
        (drop (memory.grow (i32.const 1))) (drop (table.grow $table (ref.func $noop) (i32.const 1)))
        (table.set $table (i32.const 3) (ref.func $noop)) (table.set $table (i32.const 0) (ref.null func))";
    state_reporter(fields, &found, after)
}

fn start(reuse: u32, workers: usize) -> Result<Gateway> {
    let mut yaml =
        String::from("timeouts: {filters: 12s}\nupstreams: {echo: {builtin: echo, timeout: 30s}}\nfilters:\n");
    for name in ROUTES {
        yaml.push_str(&format!("  {name}: {{source: {name}.wasm, timeout: 10s, reuse: {reuse}}}\n"));
    }
    yaml.push_str("routes:\n");
    for name in ROUTES {
        yaml.push_str(&format!("  - {{match: {{path: /{name}}}, filters: [{name}], upstream: echo}}\n"));
    }
    let mut setup = Setup::new(&yaml)?.workers(workers).level("info").with("wat.wasm", wat()?)?;
    for guest in GUESTS {
        setup = setup.with_guest(&format!("{guest}.wasm"), &format!("tests/{guest}/isolation"))?;
    }
    setup.start()
}

/// What the filter found, one number for each kind of state. 0 means no trace.
fn traces(client: &mut Client, route: &str) -> Result<Vec<u64>> {
    let response = client.get(&format!("/{route}"), &[])?;
    ensure!(response.status == 200, "{route}: {} {}", response.status, response.text());
    if route == "wat" {
        return Ok(response.body.iter().map(|digit| u64::from(digit - b'0')).collect());
    }
    let found = response.json();
    let found = found.as_object().context("an object")?.values();
    found.map(|value| value.as_u64().context("a number")).collect()
}

#[test]
fn no_call_sees_what_another_wrote() -> Result<()> {
    let requests = std::env::var("ISOLATION_REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(REQUESTS);
    let gateway = start(1, 2)?;
    let sent = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|first| {
                let gateway = &gateway;
                scope.spawn(move || -> Result<usize> {
                    let mut client = gateway.client()?;
                    let count = requests / CONNECTIONS;
                    for call in 0..count {
                        let route = ROUTES[(first + call) % ROUTES.len()];
                        let found = traces(&mut client, route)?;
                        ensure!(found.iter().all(|trace| *trace == 0), "{route}: call {call} found {found:?}");
                    }
                    Ok(count)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Result<usize>>()
    })?;
    println!("{sent} requests, {CONNECTIONS} connections, 2 threads: no trace of another call");
    Ok(())
}

#[test]
fn with_reuse_a_call_sees_what_an_earlier_one_wrote() -> Result<()> {
    let gateway = start(1000, 1)?;
    let mut client = gateway.client()?;
    for route in ROUTES {
        let (first, second) = (traces(&mut client, route)?, traces(&mut client, route)?);
        assert!(first.iter().all(|trace| *trace == 0), "{route}: {first:?}");
        assert!(second.iter().all(|trace| *trace > 0), "{route}: {second:?}");
    }
    Ok(())
}
