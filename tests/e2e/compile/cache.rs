//! The compile cache: precompiled filters, damaged entries, functions shared between filters, and
//! the gateway's memory over many reloads.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use harness::wat::{responder, with_manifest};
use harness::{Setup, repository, wait_until, wait_up_to};

use super::{COMPILE_MAX, YAML, resident_mib, responds_with, start};

#[test]
fn a_precompiled_filter_is_loaded_from_the_cache() -> Result<()> {
    let gateway = start("")?;
    let new = responder(200, None, "two")?;
    std::fs::write(gateway.path("new.wasm"), &new)?;
    let precompile = || {
        Command::new(repository().join("target/release/witgate"))
            .arg("precompile")
            .arg("--state")
            .arg(gateway.path("state"))
            .arg(gateway.path("new.wasm"))
            .output()
    };
    let output = precompile()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.contains("compiled in"), "{text} {output:?}");
    ensure!(String::from_utf8_lossy(&precompile()?.stdout).contains("in the cache"));
    gateway.replace("f.wasm", new)?;
    wait_until("the new version serves", || responds_with(&gateway, "two"));
    assert_eq!(gateway.wait_logged("taken from the cache", 1).len(), 1);

    // A damaged cache entry is detected, and the filter is compiled again.
    let three = responder(200, None, "three")?;
    std::fs::write(gateway.path("new.wasm"), &three)?;
    ensure!(precompile()?.status.success());
    for entry in std::fs::read_dir(gateway.path("state/artifacts"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cwasm") {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            let mut bytes = std::fs::read(&path)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            // Replace the file instead of writing to it, because running filters have it mapped.
            std::fs::remove_file(&path)?;
            std::fs::write(&path, bytes)?;
        }
    }
    gateway.replace("f.wasm", three)?;
    wait_until("the third version serves", || responds_with(&gateway, "three"));
    gateway.wait_logged("is damaged: it is not used", 1);
    Ok(())
}

/// A changed filter with the same engine recompiles only a small part. The test prints the time and
/// does not judge it.
#[test]
fn a_changed_filter_reuses_compiled_functions() -> Result<()> {
    let original = std::fs::read(repository().join("guests/dist/typescript/api-key.wasm"))?;
    let changed = replace_all(&original, b"api key", b"API KEY");
    ensure!(original != changed, "the filter does not contain the text to change");
    // Compiler threads sometimes exchange their workspaces, and then the cache misses some
    // functions (componentize/src/optimize/export_trampolines.rs). This is rare, so one of three
    // tries is enough.
    let mut tries = vec![];
    for _ in 0..3 {
        let (new, known) = recompiled_functions(&original, &changed)?;
        if new * 20 < known {
            return Ok(());
        }
        tries.push((new, known));
    }
    bail!("too many functions were compiled again; (compiled, cached) of each try: {tries:?}")
}

/// How many functions of `second` are compiled and how many come from the cache, on a host that
/// compiled `first` before.
fn recompiled_functions(first: &[u8], second: &[u8]) -> Result<(usize, usize)> {
    let folder = tempfile::tempdir()?;
    let precompile = |bytes: &[u8]| -> Result<String> {
        let file = folder.path().join("f.wasm");
        std::fs::write(&file, bytes)?;
        let began = Instant::now();
        let output = Command::new(repository().join("target/release/witgate"))
            .arg("precompile")
            .arg("--state")
            .arg(folder.path().join("state"))
            .arg(file)
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{:?}: {text}", began.elapsed());
        Ok(text)
    };
    let text = precompile(first)?;
    ensure!(text.contains(" 0 known"), "{text}");
    let text = precompile(second)?;
    // `… 12 functions new, 3400 known`: each count stands before its word.
    let words: Vec<&str> = text.split(' ').collect();
    let count_before = |word: &str| {
        let at = words.iter().position(|candidate| candidate.trim_end().starts_with(word))?;
        words[at - 1].parse::<usize>().ok()
    };
    let compiled = count_before("functions").context("the output has no count of functions")?;
    Ok((compiled, count_before("known").context("the output has no count of known functions")?))
}

/// Replaces a byte sequence by another of the same length.
fn replace_all(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + from.len()].copy_from_slice(to);
            at += from.len();
        } else {
            at += 1;
        }
    }
    bytes
}

/// Reloads under load do not grow memory. `just soak-reloads` runs it with the full numbers.
#[test]
fn memory_does_not_grow_with_reloads() -> Result<()> {
    let (reloads, requests) = if std::env::var_os("SOAK").is_some() { (100, 10_000) } else { (20, 500) };
    let versions = ["typescript/api-key", "typescript/rate-limit"]
        .map(|guest| std::fs::read(repository().join(format!("guests/dist/{guest}.wasm"))));
    let [first, second] = versions;
    // Both versions have the configuration key of the second one.
    let manifest = r#"{"name":"api-key","version":"0.1.0","request":{},"config":{"limit":{"type":"integer"}}}"#;
    let (first, second) = (with_manifest(first?, manifest), second?);
    let yaml = YAML.replace("source: f.wasm", "source: f.wasm, capabilities: [keyvalue], config: {limit: 1000000000}");
    let setup = Setup::new(&yaml)?.level("info").with_guest("f.wasm", "typescript/api-key")?;
    let gateway = setup.with("f.wasm", &first)?.start()?;
    let mut client = gateway.client()?;
    let mut readings = vec![];
    for reload in 0..reloads {
        // The first version refuses a request without an API key, the second one lets it pass.
        let (file, status) = if reload % 2 == 0 { (&second, 200) } else { (&first, 401) };
        gateway.replace("f.wasm", file)?;
        wait_up_to(COMPILE_MAX, "the new version serves", || {
            client.get("/", &[]).is_ok_and(|response| response.status == status)
        });
        for _ in 0..requests {
            ensure!(client.get("/", &[])?.status == status);
        }
        readings.push(resident_mib(&gateway)?);
    }
    let (early, late) = (readings[reloads / 4], readings[reloads - 1]);
    println!(
        "{reloads} reloads × {requests} requests: {early:.1} MiB after a quarter, {late:.1} MiB at the end: {readings:.1?}"
    );
    // The allocator occasionally takes 4 MiB in one step, which is no growth. Memory that stays
    // with each reload, or a second step, is growth.
    let step = readings[reloads / 4..].windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
    ensure!(late < early + 6.0, "memory grows: {readings:.1?}");
    ensure!(late - early - step < 2.0, "memory grows by more than one step of {step:.1} MiB: {readings:.1?}");
    Ok(())
}
