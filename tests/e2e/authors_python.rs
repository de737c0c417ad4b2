//! What authors of Python filters do, right and wrong: it works, or it is an exception that the
//! author's own handler can catch, or an error that names the author's file and line.
//!
//! The filter is tests/fixtures/python/authors, with one probe for each path. These tests do not
//! know: how the SDK does it.

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
        ("data_files", json!(["a line\n", "a line\n", "a line\n", ["text.txt"], ["data/text.txt"], [true, false, 7]])),
        ("network", json!(["refused", "refused", "refused", "refused"])),
        ("types_of_files", json!("text/html")),
        ("time_zone", json!(true)),
        (
            "waits",
            json!([
                "RuntimeError",
                "Empty",
                "RuntimeError",
                "RuntimeError",
                "False",
                "RuntimeError",
                "RuntimeError",
                "(True, False)",
                "(True, True)",
                "RuntimeError",
                "None"
            ]),
        ),
        ("freed", json!("freed")),
        ("outputs", json!("written")),
    ] {
        assert_eq!(result(&gateway, probe)?, expected, "{probe}");
    }
    for line in ["written to 1", "printed to __stderr__"] {
        gateway.wait_logged(line, 1);
    }
    // Each call has random numbers of its own, also those of SQLite.
    let drawn = [result(&gateway, "database")?, result(&gateway, "database")?];
    assert!(drawn[0][0] != drawn[1][0] && drawn[0][1] != drawn[1][1], "{drawn:?}");
    assert_eq!((&drawn[0][2], &drawn[0][3]), (&json!("integer"), &json!(1)));
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
            "TypeError: the value of the header field 'x-user' is text, but this is int: 42 (use str(…)) (filter.py:232 in number_as_header)",
        ),
        (
            "bad_reply",
            "ValueError: the status 65736 is not between 200 and 599: use one of those (filter.py:420 in on_request)",
        ),
        ("text_as_reply", "TypeError: on_request returned ellipsis, not a Reply or None"),
        ("json_of_set", "TypeError: Object of type set is not JSON serializable"),
        ("json_of_set", "(filter.py:291 in json_of_set)"),
        ("cause", "LookupError: no count (filter.py:299 in cause); caused by ValueError: invalid literal for int()"),
        ("cause", "note: in the header x-count (lib/steps.py:5 in parse)"),
        ("group", "[ValueError: first | TypeError: second] (filter.py:304 in group)"),
        ("deep_group", "ExceptionGroup: g (1 sub-exception) [ExceptionGroup: g (1 sub-exception) ["),
        ("no_number", "ValueError: Out of range float values are not JSON compliant: nan"),
        ("without_text", "ValueError: <its __str__ raised LookupError> (filter.py:308 in without_text)"),
        ("leave", "SystemExit: done: a filter cannot end the process; return a reply or None (filter.py:181 in leave)"),
        ("pending", "never happens in a filter, such as a timer, a socket or a future (filter.py:323 in pending)"),
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

/// The mistakes of tests/fixtures/python/authors/mistakes.py with a text that the log must have.
const MISTAKES: [(&str, &str); 53] = [
    ("name-number", "TypeError: the name of a header field is text, but this is int: 42 (use str(…))"),
    ("name-space", "ValueError: 'x a' cannot be the name of a header field: use letters, digits and -"),
    ("name-gateway", "ValueError: only the gateway writes the header field 'Content-Length': leave it out"),
    ("name-host", "ValueError: only the gateway writes the header field 'host': leave it out"),
    ("read-name", "TypeError: a name is text, but this is None: None (check for None first)"),
    ("value-number", "TypeError: the value of the header field 'x-user' is text, but this is int: 42 (use str(…))"),
    ("value-none", "'x-user' is text, but this is None: None (check for None first)"),
    ("value-bytes", "'x-user' is text, but this is bytes: b'a' (use .decode())"),
    ("value-line-break", ": remove it"),
    ("path-space", "ValueError: '/a b' is not a path: begin with / and percent-encode it (urllib.parse.quote)"),
    ("path-relative", "ValueError: 'a' is not a path: begin with /"),
    ("query-hash", "ValueError: 'a#b' is not a query: percent-encode it (urllib.parse.urlencode)"),
    ("query-dict", "TypeError: a query is text, but this is dict: {'a': 1} (use str(…))"),
    ("status-large", "ValueError: the status 700 is not between 200 and 599: use one of those"),
    ("status-text", "TypeError: a status is a whole number (int), but this is str: '200'; use int(…)"),
    ("status-float", "TypeError: a status is a whole number (int), but this is float: 200.0; use int(…)"),
    ("status-bool", "but this is bool: True; use int(…)"),
    ("headers-list", "TypeError: headers is a dict of names and values, but this is list; for pairs use Reply"),
    ("body-large", "ValueError: the body has 8388609 bytes, above the limit of 8388608: send less"),
    ("body-set", "TypeError: Object of type set is not JSON serializable"),
    ("body-time", "TypeError: Object of type datetime is not JSON serializable"),
    ("body-coroutine", "TypeError: the body is a coroutine: write `await` before it"),
    ("body-cycle", "ValueError: Circular reference detected"),
    ("ttl-negative", "ValueError: ttl_ms is -1, which is not between 0 and 4294967295"),
    ("ttl-float", "TypeError: ttl_ms, in milliseconds, is a whole number (int), but this is float: 0.5; use int(…)"),
    ("delta-float", "TypeError: delta is a whole number (int), but this is float: 0.5; use int(…)"),
    ("key-empty", "RuntimeError: keyvalue.get of key '': too-large: a key has 1 to 256 bytes"),
    ("key-number", "TypeError: a key is text, but this is int: 5 (use str(…))"),
    ("stored-large", "too-large: a key has 1 to 256 bytes and a value at most 64 KiB"),
    ("stored-dict", "this is dict: {'a': 1}"),
    ("note-name", "ValueError: the name of a note has 1 to 64 bytes, not 'nnnn"),
    ("note-number", "TypeError: the value of the note 'n' is text, but this is int: 1 (use str(…))"),
    ("note-large", "ValueError: the note 'n' has 5000 bytes, above the limit of 4096: store less"),
    ("config-key", "TypeError: a key is text, but this is int: 1 (use str(…))"),
    ("json-syntax", "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ("json-empty", "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
    ("missing-key", "KeyError: 'GET'"),
    ("missing-header", "AttributeError: 'NoneType' object has no attribute 'lower'"),
    ("number-of-none", "TypeError: int() argument must be a string"),
    ("import-late", "No module named 'wave': a call of a filter has no files; import it at the top of a module"),
    ("file-read", "FileNotFoundError: [Errno 44] No such file or directory: '/etc/passwd'"),
    ("file-write", "FileNotFoundError: [Errno 44] No such file or directory: '/tmp/a'"),
    ("environment", "KeyError: 'HOME'"),
    ("socket", "PermissionError: "),
    ("process", "OSError: "),
    ("thread", "RuntimeError: can't start new thread"),
    ("sleep", "RuntimeError: time.sleep is not available in a filter: a call has to end within its timeout"),
    ("exit", "SystemExit: done: a filter cannot end the process; return a reply or None"),
    ("recursion", "RecursionError: maximum recursion depth exceeded"),
    ("memory", "above its limit of 65536 KiB: use less, or raise its memory in gateway.yaml"),
    ("group", "ExceptionGroup: two (2 sub-exceptions) [ValueError: first | TypeError: second]"),
    ("returned-text", "TypeError: on_request returned str, not a Reply or None: use `return reply(status, body)`"),
    ("returned-pair", "TypeError: on_request returned tuple, not a Reply or None"),
];

#[test]
fn a_typical_mistake_is_logged_with_its_line_and_what_to_do() -> Result<()> {
    let gateway = start()?;
    let source = std::fs::read_to_string(repository().join("tests/fixtures/python/authors/mistakes.py"))?;
    let mut wrong = vec![];
    for (name, expected) in MISTAKES {
        let line = source.lines().position(|line| line.contains(&format!("    \"{name}\": ")));
        let line = line.with_context(|| name.to_owned())? + 1;
        // A mistake in what the handler returns has no other line than that of the handler.
        // Some are raised in a function that the line calls.
        let place = match name {
            "recursion" => "(mistakes.py:28 in recurse".to_owned(),
            "group" => "(mistakes.py:38 in raises".to_owned(),
            _ if name.starts_with("returned") => " in on_request)".to_owned(),
            _ => format!("(mistakes.py:{line} in <lambda>"),
        };
        // The gateway logs at most 20 failures of a filter in a second.
        std::thread::sleep(std::time::Duration::from_millis(60));
        let before = gateway.logged("a filter failed").len();
        let response = gateway.get(&format!("/mistakes/{name}"), &[])?;
        anyhow::ensure!(response.status == 502, "{name}: {}", response.status);
        let lines = gateway.wait_logged("a filter failed", before + 1);
        let logged = lines.last().context("a line")?;
        if !logged.contains(expected) || !logged.contains(&place) {
            wrong.push(format!("{name}: {expected} or {place} is missing in {logged}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
