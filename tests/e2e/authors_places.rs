//! When the gateway ends a call, because it trapped, took too long or wanted too much memory, the
//! log names the line of the author's source that was running.
//!
//! These tests do not know: how the runtime finds the line.

use std::fs;

use anyhow::{Context as _, Result};
use harness::{Setup, repository};

/// Sends a request for each probe of a fixture, and returns what the log says about each.
fn failures(language: &str, probes: &[&str]) -> Result<Vec<String>> {
    let yaml = "timeouts: {filters: 7500ms}\nupstreams: {echo: {builtin: echo, timeout: 20s}}\n\
        filters: {f: {source: f.wasm, timeout: 900ms, memory: 96MiB, capabilities: [keyvalue]}}\n\
        routes: [{filters: [f], upstream: echo}]";
    let gateway = Setup::new(yaml)?.with_guest("f.wasm", &format!("tests/{language}/authors"))?.start()?;
    let mut logged = vec![];
    for probe in probes {
        assert!(gateway.get(&format!("/{probe}"), &[])?.status >= 502, "{probe}");
        let lines = gateway.wait_logged("a filter failed", logged.len() + 1);
        logged.push(lines.last().context("a line")?.clone());
    }
    Ok(logged)
}

#[test]
fn a_python_filter_that_is_ended_names_its_line() -> Result<()> {
    let source = fs::read_to_string(repository().join("tests/fixtures/python/authors/filter.py"))?;
    let line_of = |text: &str| source.lines().position(|line| line.trim_end() == text).map(|index| index + 1);
    let probes = ["endless", "endless_calls", "hog", "iterate_deep"];
    let logged = failures("python", &probes)?;
    let loops = [line_of("        count = (count + 1) % 9"), line_of("    while True:").map(|line| line + 1)];
    let is_endless = loops.iter().flatten().any(|line| logged[0].contains(&format!("(filter.py:{line} in endless < ")));
    assert!(is_endless, "{}", logged[0]);
    let called = line_of("        inner(5)").context("a line")?;
    let caller = format!("filter.py:{called} in endless_calls");
    assert!(logged[1].contains(&caller), "{caller}: {}", logged[1]);
    for text in ["its time was up: filters.f.timeout is 900ms", "\"kind\":\"deadline\"", " in on_request"] {
        assert!(logged[..2].iter().all(|line| line.contains(text)), "{text}: {logged:?}");
    }
    let kept = line_of("        kept.append(bytearray(1 << 20))").context("a line")?;
    assert!(logged[2].contains(&format!("(filter.py:{kept} in hog < filter.py:")), "{}", logged[2]);
    assert!(logged[2].contains("\"kind\":\"memory\"") && logged[2].contains("above its limit of 98304 KiB"));
    let iterated = line_of("    return list(chain)").context("a line")?;
    assert!(logged[3].contains(&format!("(filter.py:{iterated} in iterate_deep < ")), "{}", logged[3]);
    assert!(logged[3].contains("wasm trap: "), "{}", logged[3]);
    Ok(())
}

#[test]
fn a_typescript_filter_that_is_ended_names_its_line() -> Result<()> {
    let source = fs::read_to_string(repository().join("tests/fixtures/typescript/authors/src/filter.ts"))?;
    let probes = ["endless", "endless-calls", "endless-job", "hog", "endless-queue"];
    for (probe, logged) in probes.iter().zip(failures("typescript", &probes)?) {
        if *probe == "endless-queue" {
            let place =
                logged.contains("src/filter.ts:") || logged.contains("queueMicrotask calls that never come to an end");
            assert!(place, "{probe}: {logged}");
            continue;
        }
        let line = source.lines().position(|line| line.contains(&format!("  \"{probe}\": "))).context("a line")? + 1;
        assert!(
            logged.contains(&format!("src/filter.ts:{line} < ")) || logged.contains(&format!("src/filter.ts:{line})")),
            "{probe}, line {line}: {logged}"
        );
        let kind = if *probe == "hog" { "above its limit of" } else { "its time was up" };
        assert!(logged.contains(kind), "{probe}: {logged}");
    }
    Ok(())
}
