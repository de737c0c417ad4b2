//! h2spec, all of its cases: on a plain connection with prior knowledge, and on TLS.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup};

use super::testssl::tls_setup;
use super::tools;

/// The whole suite, strict cases included.
const CASES: &str = "146 tests, 146 passed, 0 skipped, 0 failed";
const YAML: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";

fn run(gateway: &Gateway, more: &[&str]) -> Result<()> {
    let h2spec = tools::install("h2spec")?.join("h2spec");
    let output = Command::new(h2spec)
        .args(["--strict", "--timeout", "3", "--port", &gateway.address.port().to_string()])
        .args(more)
        .output()
        .context("h2spec cannot be run")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let from = said.find("Failures:").unwrap_or_default();
    ensure!(said.contains(CASES), "not all cases passed: {}", &said[from..]);
    println!("{CASES}");
    Ok(())
}

#[test]
fn every_case_passes_on_a_plain_connection() -> Result<()> {
    run(&Setup::new(YAML)?.level("warn").start()?, &[])
}

#[test]
fn every_case_passes_on_tls() -> Result<()> {
    run(&tls_setup(YAML)?.level("warn").start()?, &["--tls", "--insecure"])
}
