//! The commands `check` and `inspect`: their output and exit code.

use std::process::{Command, Stdio};

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

#[test]
fn a_closed_pipe_ends_the_output_quietly() -> Result<()> {
    let setup = Setup::new("upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]")?;
    let mut child = Command::new(repository().join("target/release/witgate"))
        .args(["check", "--config"])
        .arg(setup.write()?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*text), (Some(0), ""));
    Ok(())
}

#[test]
fn an_address_in_use_is_reported_before_filters_are_compiled() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm}}\nroutes: [{upstream: echo}]";
    let setup = Setup::new(yaml)?.with("f.wasm", responder(200, None, "")?)?.at(taken.local_addr()?);
    let error = setup.start().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("is another process using it?") && !error.contains("\"compiled\""), "{error}");
    Ok(())
}

#[test]
fn inspect_escapes_what_a_file_contains() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("f.wasm");
    let manifest = r#"{"name":"f","version":"1.2.3","request":{},"config":{"k":{"description":"a\nb"}}}"#;
    std::fs::write(&path, with_manifest(responder(200, None, "")?, manifest))?;
    for json in [&[][..], &["--json"]] {
        let output =
            Command::new(repository().join("target/release/witgate")).arg("inspect").arg(&path).args(json).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("a\\nb"), "{text}");
    }
    Ok(())
}

#[test]
fn admin_false_turns_the_admin_listener_off() -> Result<()> {
    let yaml = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";
    let path = Setup::new(yaml)?;
    let text = path.text(yaml).replace("admin: {address: \"127.0.0.1:0\"}", "admin: false");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("gateway.yaml");
    std::fs::write(&file, text)?;
    let output =
        Command::new(repository().join("target/release/witgate")).args(["check", "--config"]).arg(&file).output()?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
