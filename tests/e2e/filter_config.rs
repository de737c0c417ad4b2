//! A filter's configuration: the schemas of its manifest, their defaults, and values by reference.

use anyhow::{Result, ensure};
use harness::wat::{component, module, responder, with_manifest};
use harness::{Gateway, Setup, wait_until};

const MANIFEST: &str = r#"{"name":"f","version":"1.0.0","request":{},"config":{
    "percent":{"type":"integer","minimum":0,"maximum":100,"default":7},"key":{"type":"string","default":"none"}}}"#;

fn yaml(config: &str) -> String {
    format!(
        "upstreams: {{echo: {{builtin: echo}}}}\nfilters: {{f: {{source: f.wasm, config: {config}}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
    )
}

/// A filter that responds with the value of its configuration key `key`.
fn config_reporter() -> Result<Vec<u8>> {
    // `config.get` writes option<string> to 512: the discriminant, the pointer and the length.
    let wat = r#"(module
        (import "witgate:gateway/config@0.1.0" "get" (func $get (param i32 i32 i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "key")
        (global $next (mut i32) (i32.const 8192))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
          (local $at i32) (local.set $at (global.get $next))
          (global.set $next (i32.add (global.get $next) (i32.add (local.get 3) (i32.const 8)))) (local.get $at))
        (func (export "witgate:gateway/request-handler@0.1.0#handle-request") (result i32)
          (call $get (i32.const 100) (i32.const 3) (i32.const 512))
          (i32.store (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 200))
          (i32.store (i32.const 1044) (i32.load (i32.const 516))) (i32.store (i32.const 1048) (i32.load (i32.const 520)))
          (i32.const 1024)))"#;
    Ok(with_manifest(component("include request-filter;", wat)?, MANIFEST))
}

fn key_of(gateway: &Gateway) -> Result<String> {
    Ok(gateway.get("/", &[])?.text())
}

#[test]
fn a_configuration_that_does_not_fit_the_schemas_is_refused() -> Result<()> {
    let wasm = with_manifest(responder(200, None, "one")?, MANIFEST);
    for (config, expected) in [
        ("{percent: many}", "config.percent: the value is not of type \"integer\" (config)"),
        ("{percent: -3}", "config.percent: the value is less than the minimum of 0"),
        ("{percnt: 3}", "config.percnt: the filter has no such key: did you mean percent?"),
    ] {
        let (code, text) = Setup::new(&yaml(config))?.with("f.wasm", &wasm)?.check()?;
        ensure!(code == Some(1) && text.contains(expected), "{config}: {text}");
        let error = Setup::new(&yaml(config))?.with("f.wasm", &wasm)?.start().err().map(|error| error.to_string());
        ensure!(error.as_ref().is_some_and(|error| error.contains(expected)), "{config}: {error:?}");
    }
    let of_route = yaml("{percent: 5}").replace("filters: [f]", "filters: [{filter: f, config: {percent: 101}}]");
    let (code, text) = Setup::new(&of_route)?.with("f.wasm", &wasm)?.check()?;
    let expected = "config.percent: the value is greater than the maximum of 100 (route route-1)";
    ensure!(code == Some(1) && text.contains(expected), "{text}");
    let (code, text) = Setup::new(&yaml("{percent: \"5\", key: 12}"))?.with("f.wasm", &wasm)?.check()?;
    ensure!(code == Some(0), "{text}");
    Ok(())
}

#[test]
fn a_new_version_whose_schema_refuses_the_configuration_does_not_replace_the_old_one() -> Result<()> {
    let wasm = with_manifest(responder(200, None, "one")?, MANIFEST);
    let gateway = Setup::new(&yaml("{percent: 50}"))?.with("f.wasm", &wasm)?.start()?;
    let stricter = MANIFEST.replace("\"maximum\":100", "\"maximum\":10");
    gateway.replace("f.wasm", with_manifest(responder(200, None, "two")?, &stricter))?;
    gateway.wait_logged("config.percent: the value is greater than the maximum of 10", 1);
    ensure!(key_of(&gateway)? == "one");
    ensure!(gateway.metric("witgate_filter_load_failures_total{filter=\"f\",reason=\"config\"}")? == 1.0);
    Ok(())
}

#[test]
fn a_default_of_the_schema_reaches_the_filter() -> Result<()> {
    let gateway = Setup::new(&yaml("{}"))?.with("f.wasm", config_reporter()?)?.start()?;
    ensure!(key_of(&gateway)? == "none", "{}", key_of(&gateway)?);
    Ok(())
}

#[test]
fn a_secret_comes_from_a_file_or_the_environment_and_is_shown_nowhere() -> Result<()> {
    const SECRET: &str = "s3cr3t-value";
    let gateway = Setup::new(&yaml("{key: {file: secret}}"))?
        .with("f.wasm", config_reporter()?)?
        .with("secret", format!("{SECRET}\n"))?
        .start()?;
    ensure!(key_of(&gateway)? == SECRET);
    for path in ["/metrics", "/filters", "/upstreams"] {
        ensure!(!gateway.admin(path)?.text().contains(SECRET), "{path}");
    }
    // A changed file is a changed configuration.
    gateway.replace("secret", "another-value")?;
    wait_until("the new secret is in service", || key_of(&gateway).is_ok_and(|key| key == "another-value"));
    std::fs::remove_file(gateway.path("secret"))?;
    let lines = gateway.wait_logged("filters.f.config.key", 1);
    ensure!(lines[0].contains("No such file") && lines[0].contains(":7: "), "{lines:?}");
    ensure!(key_of(&gateway)? == "another-value", "the previous configuration stays");
    let log = gateway.logged("").join("\n");
    ensure!(!log.contains(SECRET) && !log.contains("another-value"), "{log}");

    let path = std::path::Path::new(SECRET);
    let gateway = Setup::new(&yaml("{key: {env: WITGATE_TEST_KEY}}"))?
        .with("f.wasm", config_reporter()?)?
        .variable("WITGATE_TEST_KEY", path)
        .start()?;
    ensure!(key_of(&gateway)? == SECRET);
    Ok(())
}

#[test]
fn a_missing_or_unfit_reference_is_an_error_without_its_value() -> Result<()> {
    let wasm = with_manifest(responder(200, None, "one")?, MANIFEST);
    let (code, text) = Setup::new(&yaml("{key: {env: WITGATE_NOT_SET}}"))?.with("f.wasm", &wasm)?.check()?;
    let expected = ":7: filters.f.config.key: {env: \"WITGATE_NOT_SET\"}: the environment variable is not set";
    ensure!(code == Some(1) && text.contains(expected), "{text}");
    let (code, text) =
        Setup::new(&yaml("{percent: {file: secret}}"))?.with("f.wasm", &wasm)?.with("secret", "hunter2")?.check()?;
    ensure!(code == Some(1) && text.contains("config.percent") && !text.contains("hunter2"), "{text}");
    let unfit = yaml("{}").replace("source: f.wasm", "source: f.wasm, timeout: {file: secret}");
    let (code, text) = Setup::new(&unfit)?.with("f.wasm", &wasm)?.with("secret", "hunter2")?.check()?;
    ensure!(code == Some(1) && text.contains("filters.f.timeout: {file: \"secret\"}"), "{text}");
    ensure!(!text.contains("hunter2"), "{text}");
    Ok(())
}

#[test]
fn a_manifest_with_control_characters_or_long_texts_is_refused() -> Result<()> {
    for (from, to) in [("1.0.0", &format!("1.0.0+{}", "9".repeat(200_000))), ("\"f\"", &"\"f\\u001b[2J\"".to_owned())] {
        let wasm = with_manifest(module("", "(i32.const 0)")?, &MANIFEST.replacen(from, to, 1));
        let (code, text) = Setup::new(&yaml("{}"))?.with("f.wasm", &wasm)?.check()?;
        ensure!(code == Some(1) && text.contains("witgate:manifest is not valid"), "{text}");
        ensure!(text.len() < 2000 && !text.contains('\u{1b}'), "{text}");
    }
    Ok(())
}

#[test]
fn check_warns_if_a_filter_that_decides_who_may_pass_fails_open() -> Result<()> {
    let guard = MANIFEST.replace("\"request\"", "\"auth\":true,\"request\"");
    let open = yaml("{}").replace("source: f.wasm", "source: f.wasm, on_error: open");
    for (manifest, yaml, is_warned) in
        [(guard.as_str(), &open, true), (guard.as_str(), &yaml("{}"), false), (MANIFEST, &open, false)]
    {
        let wasm = with_manifest(responder(401, None, "who?")?, manifest);
        let (code, text) = Setup::new(yaml)?.with("f.wasm", &wasm)?.check()?;
        let warning = "filters.f.on_error: with open, a request passes if it makes the filter fail";
        ensure!(code == Some(0) && text.contains(warning) == is_warned, "{is_warned}: {text}");
    }
    Ok(())
}
