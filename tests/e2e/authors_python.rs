//! What authors of Python filters do, right and wrong: it works, or it is an exception that the
//! author's own handler can catch, or an error that names the author's file and line.
//!
//! The filter is tests/fixtures/python/authors, with one probe for each path. These tests do not
//! know: how the SDK does it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::{Gateway, Setup, repository};
use serde_json::{Value, json};

fn start() -> Result<Gateway> {
    let yaml = "timeouts: {filters: 7500ms}\nupstreams: {echo: {builtin: echo}}\n\
        filters: {f: {source: f.wasm, timeout: 7s, capabilities: [keyvalue]}}\n\
        routes: [{filters: [f], upstream: echo}]";
    Setup::new(yaml)?.with_guest("f.wasm", "tests/python/authors")?.start()
}

/// The result of a probe that works.
fn result(gateway: &Gateway, probe: &str) -> Result<Value> {
    let response = gateway.get(&format!("/{probe}"), &[])?;
    anyhow::ensure!(response.status == 200, "{probe}: {} {}", response.status, response.text());
    Ok(response.json()["result"].clone())
}

#[test]
fn without_an_operating_system_code_works_or_raises_what_can_be_caught() -> Result<()> {
    let gateway = start()?;
    for (probe, expected) in [
        ("late_import", json!([0.0, 1.0, 1])),
        ("missing_import", json!("ModuleNotFoundError")),
        ("parse_date", json!("2024-05-06T00:00:00")),
        ("log_exception", json!("passed")),
        (
            "files",
            json!([
                false,
                false,
                {},
                "FileNotFoundError",
                "FileNotFoundError",
                "FileNotFoundError",
                "FileNotFoundError",
                "LookupError"
            ]),
        ),
        ("network", json!(["refused", "refused", "refused", "refused"])),
        ("types_of_files", json!("text/html")),
        ("time_zone", json!(true)),
    ] {
        assert_eq!(result(&gateway, probe)?, expected, "{probe}");
    }
    for line in
        ["ERROR:root:going on", "ValueError: invalid literal for int() with base 10: 'x'", "UserWarning: careful"]
    {
        gateway.wait_logged(line, 1);
    }
    Ok(())
}

#[test]
fn recursion_that_is_too_deep_is_an_exception() -> Result<()> {
    let gateway = start()?;
    let expected =
        json!([900, 400, "RecursionError", "RecursionError", "MemoryError", "MemoryError", "RecursionError", "worked"]);
    let found = result(&gateway, "recursion")?;
    let kinds: Vec<Value> = expected.as_array().context("a list")?.clone();
    for (index, expected) in kinds.iter().enumerate().take(7) {
        assert_eq!(found[index], *expected, "{found}");
    }
    let mut client = gateway.client()?;
    for (body, expected) in [
        ("[".repeat(5_000), json!("not JSON")),
        (format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)), json!("too deep")),
        ("\u{feff}{}".to_owned(), json!({"parsed": {}})),
        ("{".to_owned(), json!("not JSON")),
    ] {
        let response = client.send("POST", "/json_body", &[], body.as_bytes())?;
        assert_eq!((response.status, response.json()["result"].clone()), (200, expected));
    }
    let nested = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(client.send("POST", "/json_body", &[], nested.as_bytes())?.status, 200);
    Ok(())
}

#[test]
fn values_that_the_gateway_cannot_take_raise_in_the_filter() -> Result<()> {
    let gateway = start()?;
    let expected = "TypeError ValueError ValueError ValueError ValueError ValueError TypeError ValueError TypeError \
        TypeError ValueError ValueError ValueError ValueError TypeError TypeError ValueError TypeError ValueError \
        LookupError";
    let found = result(&gateway, "refused_values")?;
    let found: Vec<&str> = found.as_array().context("a list")?.iter().filter_map(Value::as_str).collect();
    assert_eq!(found, expected.split_whitespace().collect::<Vec<_>>());
    let echoed = gateway.client()?.send("POST", "/surrogates", &[], b"x")?;
    assert_eq!((echoed.status, echoed.echoed("x-name")), (200, Some("a\u{fffd}b".into())));
    assert_eq!(echoed.json()["body"], "😀\u{fffd}");
    gateway.wait_logged("name \u{fffd}", 1);
    gateway.wait_logged("printed \u{fffd}", 1);
    Ok(())
}

#[test]
fn a_failure_is_logged_with_the_authors_file_and_line_and_its_causes() -> Result<()> {
    let gateway = start()?;
    for (probe, expected) in [
        (
            "number_as_header",
            "TypeError: the value of the header field 'x-user' is text, but this is int: 42 (use str(…)) (filter.py:168 in number_as_header)",
        ),
        ("bad_reply", "ValueError: the status 65736 is not between 200 and 599 (filter.py:298 in on_request)"),
        ("text_as_reply", "TypeError: on_request returned ellipsis, not a Reply or None"),
        ("json_of_set", "TypeError: Object of type set is not JSON serializable"),
        ("json_of_set", "(filter.py:227 in json_of_set)"),
        ("cause", "LookupError: no count (filter.py:235 in cause); caused by ValueError: invalid literal for int()"),
        ("cause", "note: in the header x-count (lib/steps.py:5 in parse)"),
        ("group", "[ValueError: first | TypeError: second] (filter.py:240 in group)"),
        ("without_text", "ValueError: <its __str__ raised LookupError> (filter.py:244 in without_text)"),
        ("leave", "SystemExit: done: a filter cannot end the process; return a reply or None (filter.py:117 in leave)"),
        ("pending", "never happens in a filter, such as a timer, a socket or a future (filter.py:259 in pending)"),
    ] {
        let response = gateway.get(&format!("/{probe}"), &[])?;
        assert_eq!(response.status, 502, "{probe}");
        harness::wait_until(expected, || {
            gateway
                .logged("a filter failed")
                .iter()
                .any(|line| line.contains(expected) && line.contains("\"kind\":\"error\""))
        });
    }
    Ok(())
}

#[test]
fn the_standard_library_behaves_as_elsewhere() -> Result<()> {
    let gateway = start()?;
    let expected = json!([0.639_426_798_457_883_7, true, true, true, "datetime.datetime(2024, 5, 6, 0, 0)", true]);
    for _ in 0..2 {
        assert_eq!(result(&gateway, "standard")?, expected);
    }
    assert_eq!(result(&gateway, "keys")?, "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43");
    gateway.wait_logged("printed without an end", 1);
    assert_eq!(gateway.get("/gather", &[])?.json(), json!([2, 4]));
    Ok(())
}

/// What `componentize build` prints for a filter with these files. The build must fail.
fn refusal(files: &[(&str, &str)]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("filter.toml", "name = \"wrong\"\nversion = \"1.0.0\"\n[request]\n")?;
    for (name, text) in files {
        write(name, text)?;
    }
    build(folder.path())
}

fn build(folder: &Path) -> Result<String> {
    let componentize = repository().join("target/release/componentize");
    let output =
        Command::new(componentize).arg("build").arg(folder).arg("--out-dir").arg(folder.join("out")).output()?;
    anyhow::ensure!(!output.status.success(), "the build worked");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

const IMPORTS: &str = "from witgate import Reply, Request, reply\n";

#[test]
fn a_mistake_is_refused_by_the_build_with_its_file_and_line() -> Result<()> {
    for (source, expected) in [
        (
            "def on_requests(request: Request) -> Reply | None:\n    return None\n",
            "filter.py: does not define on_request",
        ),
        (
            "def on_request(request: Request) -> str:\n    return \"a\"\n",
            "filter.py:2: error: on_request is Callable[[Request], str], but the gateway calls `def on_request(request: Request) -> Reply | None`",
        ),
        (
            "def on_request(request: Request, more: int) -> Reply | None:\n    return None\n",
            "filter.py:2: error: on_request is Callable[[Request, int], Reply | None]",
        ),
        (
            "def on_request(request: Request) -> Reply | None:\n    return reply(\"200\")\n",
            "filter.py:3: error: Argument 1 to \"reply\"",
        ),
        (
            "TABLE: dict[str, str] = {}\n\ndef find() -> str:\n    return TABLE[\"a\"]\n\nFOUND = find()\n\ndef on_request(request: Request) -> Reply | None:\n    return None\n",
            "KeyError: 'a' (filter.py:5 in find)",
        ),
    ] {
        let printed = refusal(&[("filter.py", &format!("{IMPORTS}{source}"))])?;
        assert!(printed.contains(expected), "{expected} not in {printed}");
    }
    Ok(())
}
