//! The WebAssembly proposals: a filter runs with those that the pool has room for, and is refused
//! at load, by the proposal's name, with any other.

use anyhow::{Context as _, Result, ensure};
use harness::wat::module;
use harness::{Setup, wait_until};

const YAML: &str = "
upstreams: {echo: {builtin: echo}}
filters: {f: {source: f.wasm}}
routes: [{filters: [f], upstream: echo}]
";

/// The name of a refused proposal, and the fields and instructions of a filter that uses it.
const REFUSED: [(&str, &str, &str); 9] = [
    ("exception handling", "(tag $t)", "(block $h (try_table (catch_all $h) (throw $t))) (i32.const 0)"),
    ("garbage collection", "(type $s (struct (field i32)))", "(drop (struct.new_default $s)) (i32.const 0)"),
    ("extern references", "(table $x 1 externref)", "(drop (table.get $x (i32.const 0))) (i32.const 0)"),
    (
        "function references",
        "(type $v (func)) (elem declare func $f) (func $f)",
        "(call_ref $v (ref.func $f)) (i32.const 0)",
    ),
    ("memory64", "(memory $big i64 1)", "(drop (i32.load $big (i64.const 0))) (i32.const 0)"),
    ("threads", "(memory $shared 1 1 shared)", "(i32.const 0)"),
    ("threads", "", "(drop (i32.atomic.load (i32.const 0))) (i32.const 0)"),
    ("custom page sizes", "(memory $small 1 1 (pagesize 1))", "(i32.const 0)"),
    (
        "wide arithmetic",
        "",
        "(i64.add128 (i64.const 1) (i64.const 0) (i64.const 1) (i64.const 0)) (drop) (drop) (i32.const 0)",
    ),
];

const ALLOWED: [(&str, &str, &str); 7] = [
    ("tail calls", "(func $zero (result i32) (i32.const 0))", "(return_call $zero)"),
    ("multi-memory", "(memory $second 1)", "(drop (i32.load $second (i32.const 0))) (i32.const 0)"),
    ("SIMD", "", "(drop (v128.const i64x2 1 2)) (i32.const 0)"),
    ("relaxed SIMD", "", "(drop (i8x16.relaxed_swizzle (v128.const i64x2 1 2) (v128.const i64x2 1 2))) (i32.const 0)"),
    ("extended constants", "(global $g i32 (i32.add (i32.const 1) (i32.const 2)))", "(i32.const 0)"),
    ("bulk memory", "", "(memory.fill (i32.const 0) (i32.const 0) (i32.const 8)) (i32.const 0)"),
    ("reference types", "(table $t 1 funcref)", "(drop (table.get $t (i32.const 0))) (i32.const 0)"),
];

#[test]
fn a_proposal_that_is_not_listed_is_refused_by_its_name() -> Result<()> {
    let gateway = Setup::new(YAML)?.with("f.wasm", module("", "(i32.const 0)")?)?.start()?;
    for (at, (name, fields, body)) in REFUSED.into_iter().enumerate() {
        let wasm = module(fields, body).context(name)?;
        let expected = format!("the WebAssembly proposal {name},");
        let (code, text) = Setup::new(YAML)?.with("f.wasm", &wasm)?.check()?;
        ensure!(code == Some(1) && text.contains(&expected), "{name}: {text}");
        gateway.replace("f.wasm", &wasm)?;
        wait_until(name, || {
            gateway
                .metric("witgate_filter_load_failures_total{filter=\"f\",reason=\"proposal\"}")
                .is_ok_and(|count| count > at as f64)
        });
        ensure!(gateway.get("/", &[])?.status == 200, "{name}: the filter in service stays");
    }
    Ok(())
}

#[test]
fn a_proposal_that_is_listed_runs() -> Result<()> {
    for (name, fields, body) in ALLOWED {
        let gateway = Setup::new(YAML)?.with("f.wasm", module(fields, body)?)?.start().context(name)?;
        let status = gateway.get("/", &[])?.status;
        ensure!(status == 200, "{name}: {status}");
    }
    Ok(())
}
