//! The commands `check` and `inspect`: their output and exit code.

use std::process::Command;

use anyhow::Result;
use harness::wat::{responder, with_manifest};
use harness::{Setup, repository};

#[test]
fn check_reports_every_error_with_its_line() -> Result<()> {
    let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm, timout: 1s}}\nroutes: [{upstream: ecko, filters: [f]}]";
    let (code, text) = Setup::new(yaml)?.check()?;
    assert_eq!(code, Some(1));
    for expected in [
        ":7: filters.f.timout: unknown key: did you mean timeout?",
        ":8: routes[0].upstream: ecko: there is no such upstream: did you mean echo?",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    Ok(())
}

#[test]
fn check_also_loads_the_filters() -> Result<()> {
    let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm}, g: {source: g.wasm}}\nroutes: [{upstream: echo, filters: [f]}]";
    let (code, text) = Setup::new(yaml)?.with("f.wasm", "hello")?.check()?;
    assert_eq!(code, Some(1));
    for expected in ["filters.f: ", "f.wasm: the file is not WebAssembly", "filters.g: ", "g.wasm: No such file"] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let (code, text) = Setup::new(yaml)?
        .with("f.wasm", responder(200, None, "")?)?
        .with("g.wasm", responder(200, None, "")?)?
        .check()?;
    assert_eq!((code, text.contains("ok (1 route, 2 filters)")), (Some(0), true), "{text}");
    Ok(())
}

#[test]
fn inspect_describes_a_component() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("f.wasm");
    let manifest = r#"{"name":"f","version":"1.2.3","request":{"body":"buffer","body_bytes_max":5}}"#;
    std::fs::write(&path, with_manifest(responder(200, None, "")?, manifest))?;
    let inspect = |path: &std::path::Path| {
        Command::new(repository().join("target/release/witgate")).arg("inspect").arg(path).output()
    };
    let output = inspect(&path)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in ["world     request-filter", "manifest  f 1.2.3", "request   body of at most 5 bytes", "sha256    "]
    {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    std::fs::write(&path, "hello")?;
    let output = inspect(&path)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not WebAssembly"));
    Ok(())
}
