//! Rust filters that use the time, random numbers, hash maps and printing.
//!
//! The fixture is tests/fixtures/rust/system. These tests do not know: how the SDK does it.

use anyhow::{Context as _, Result};
use harness::Setup;
use serde_json::Value;

#[test]
fn crates_for_time_and_identifiers_work_and_each_call_has_its_own_seed() -> Result<()> {
    let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm}}\n\
        routes: [{filters: [f], upstream: echo}]";
    let gateway = Setup::new(yaml)?.with_guest("f.wasm", "tests/rust/system")?.start()?;
    let calls: Vec<Value> = (0..3).map(|_| Ok(gateway.get("/", &[])?.json())).collect::<Result<_>>()?;
    for (call, next) in calls.iter().zip(&calls[1..]) {
        for key in ["id", "order"] {
            assert_ne!(call[key], next[key], "{key}");
        }
        assert!(call["time"].as_str().context("a time")? <= next["time"].as_str().context("a time")?);
        assert_eq!(call["id"].as_str().and_then(|id| id.chars().nth(14)), Some('4'), "{call}");
        gateway.wait_logged(&format!("made {}", call["id"].as_str().context("an id")?), 1);
    }
    assert!(calls[0]["time"].as_str().is_some_and(|time| time > "2026"), "{}", calls[0]);
    assert_eq!(gateway.get("/panic", &[])?.status, 502);
    gateway.wait_logged("panic: time not implemented on this platform: use witgate_filter::now()", 1);
    Ok(())
}
