//! All cases of h2spec, on a cleartext connection with prior knowledge and on TLS.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup};

use super::testssl::tls_setup;
use super::tools;

/// The result line of the whole suite, including the strict cases.
const CASES: &str = "146 tests, 146 passed, 0 skipped, 0 failed";
const YAML: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";

fn run(gateway: &Gateway, arguments: &[&str]) -> Result<()> {
    let h2spec = tools::install("h2spec")?.join("h2spec");
    let output = Command::new(h2spec)
        .args(["--strict", "--timeout", "3", "--port", &gateway.address.port().to_string()])
        .args(arguments)
        .output()
        .context("cannot run h2spec")?;
    let output = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let failures = output.find("Failures:").unwrap_or_default();
    ensure!(output.contains(CASES), "h2spec reports failures: {}", &output[failures..]);
    println!("{CASES}");
    Ok(())
}

#[test]
fn every_case_passes_on_cleartext() -> Result<()> {
    run(&Setup::new(YAML)?.level("warn").start()?, &[])
}

#[test]
fn every_case_passes_on_tls() -> Result<()> {
    run(&tls_setup(YAML)?.level("warn").start()?, &["--tls", "--insecure"])
}
