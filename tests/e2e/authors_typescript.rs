//! TypeScript filters as authors write them: mistakes name their line, and what works elsewhere
//! works or fails with a message that says why.
//!
//! The fixture tests/fixtures/typescript/authors has a probe for each path. These tests do not
//! know: how the SDK checks.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup, repository};
use serde_json::json;

const FIXTURE: &str = "tests/fixtures/typescript/authors";

fn start() -> Result<Gateway> {
    let yaml = "timeouts: {filters: 9s}\nupstreams: {echo: {builtin: echo, timeout: 20s}}\n\
        filters: {f: {source: f.wasm, timeout: 8s, capabilities: [keyvalue]}}\nroutes: [{filters: [f], upstream: echo}]";
    Setup::new(yaml)?.with_guest("f.wasm", "tests/typescript/authors")?.start()
}

/// The mistakes of the fixture with a text that the log must have. The line is that of the probe.
const MISTAKES: [(&str, &str); 61] = [
    ("name-number", "TypeError: the name of a header field must be a token such as x-user"),
    ("name-space", "not \\\"x a\\\""),
    ("name-surrogate", "TypeError: the name of a header field"),
    ("name-gateway", "TypeError: header Content-Length: only the gateway writes this field"),
    ("read-name", "TypeError: the name of a header field must be a string"),
    ("value-object", "TypeError: header x-a: the value must be a string"),
    ("value-undefined", "not undefined"),
    ("value-nan", "not NaN"),
    ("value-line-break", "has a control character"),
    ("value-promise", "a promise, which needs `await`"),
    ("path-space", "TypeError: the path must begin with /"),
    ("path-relative", "TypeError: the path must begin with /"),
    ("path-number", "TypeError: the path must be a string"),
    ("query-hash", "TypeError: the query must be percent-encoded"),
    ("status-large", "RangeError: the status must be a whole number from 200 to 599, not 65736"),
    ("status-small", "RangeError: the status"),
    ("status-fraction", "not 200.5"),
    ("status-text", "TypeError: the status must be a number"),
    ("body-204", "a response with status 204 has no body"),
    ("body-promise", "TypeError: the body is a promise: write `await` before it"),
    ("body-function", "not a function"),
    ("body-large", "RangeError: a body has at most 8388608 bytes, not 8388609"),
    ("body-cycle", "TypeError: circular reference"),
    ("headers-object", "TypeError: header x-a: the value must be a string"),
    ("headers-many", "RangeError: a response has at most 128 fields"),
    ("edits-many", "RangeError: one call makes at most 256 edits"),
    ("edits-large", "RangeError: one call makes at most 256 edits"),
    ("note-name", "RangeError: the name of a note has 1 to 64 bytes, not 65"),
    ("note-large", "RangeError: note n: the value has 0 to 4096 bytes, not 4098"),
    ("notes-many", "RangeError: an exchange has at most 32 notes"),
    ("body-gone", "TypeError: the bytes of the body are gone: their buffer was transferred"),
    ("note-object", "TypeError: note n: the value must be a string"),
    ("config-key", "TypeError: the key must be a string"),
    ("ttl-negative", "RangeError: ttlMs must be from 1 to 4294967295 milliseconds, not -1"),
    ("ttl-zero", "leave it out for a key that does not expire"),
    ("ttl-half", "not 0.5"),
    ("ttl-nan", "not NaN"),
    ("ttl-large", "not 4294967296"),
    ("ttl-text", "TypeError: ttlMs must be a number"),
    ("key-empty", "RangeError: a key has 1 to 256 bytes, not 0"),
    ("key-large", "RangeError: a key has 1 to 256 bytes, not 258"),
    ("stored-object", "must be a string, a finite number or a boolean"),
    ("stored-large", "RangeError: the value of key"),
    ("delta-fraction", "RangeError: delta must be a whole number of 32 bits"),
    ("random-quota", "QuotaExceededError: crypto.getRandomValues gives at most 65536 bytes"),
    ("random-floats", "TypeMismatchError: crypto.getRandomValues needs an array of integers"),
    (
        "decoder-label",
        "RangeError: TextDecoder: a filter does not have shift_jis, only UTF-8, UTF-16 and encodings of one byte: use an npm",
    ),
    ("locale", "TypeError: toLocaleString with a locale or options: a filter has no locale data"),
    ("json-syntax", "SyntaxError: "),
    ("absent-name", "ReferenceError: setTimeout is not defined: a filter has no timers"),
    ("recursion", "RangeError: Maximum call stack size exceeded"),
    ("package", "(packages/clock-at-load/index.js:15, called from src/filter.ts:"),
    ("cause", "; caused by RangeError: inner ("),
    ("several", "; errors: Error: first ("),
    ("rejected", "TypeError: after await"),
    ("unhandled", "TypeError: nobody looks"),
    ("unhandled-job", "TypeError: in a job"),
    ("thrown-long", "Error: xxxxxxxx"),
    ("import-computed", "a filter loads nothing in a call: import modules by names that stand in the source"),
    ("thrown-surrogate", "Error: \u{fffd}"),
    ("thrown-object", "thrown: {\\\"code\\\":7} (onRequest, src/filter.ts:"),
];

/// Mistakes that have no line of their own. The log names the handler instead.
const NO_LINE: [(&str, &str); 7] = [
    ("thrown-revoked", "thrown: [cannot be shown: revoked proxy]"),
    ("pending", "is still pending when nothing is left to run"),
    ("returned-object", "TypeError: the handler must return reply(…) or nothing, not an object"),
    ("returned-text", "not \\\"text\\\""),
    ("returned-status", "RangeError: the status must be a whole number"),
    ("thrown-proxy", "[cannot be shown: no]"),
    ("thrown-hostile", "thrown: [cannot be shown: no]"),
];

#[test]
fn a_mistake_is_logged_with_the_authors_line() -> Result<()> {
    let gateway = start()?;
    let source = fs::read_to_string(repository().join(FIXTURE).join("src/filter.ts"))?;
    let line_of = |text: &str| source.lines().position(|line| line.contains(text)).map(|index| index + 1);
    let handler = line_of("export function onRequest").context("a handler")?;
    for (name, expected) in MISTAKES.into_iter().chain(NO_LINE) {
        let own = line_of(&format!("  \"{name}\": ")).with_context(|| name.to_owned())?;
        let has_line = MISTAKES.iter().any(|(mistake, _)| *mistake == name) && name != "thrown-object";
        let place = format!("src/filter.ts:{}", if has_line { own } else { handler });
        // The gateway logs at most 20 failures of a filter in a second.
        std::thread::sleep(Duration::from_millis(60));
        let before = gateway.logged("a filter failed").len();
        let response = gateway.get(&format!("/{name}"), &[])?;
        ensure!(response.status == 502, "{name}: {}", response.status);
        let lines = gateway.wait_logged("a filter failed", before + 1);
        let line = lines.last().context("a line")?;
        ensure!(line.contains("\"kind\":\"error\""), "{name} is no error: {line}");
        ensure!(line.contains(expected) && line.contains(&place), "{name}: {expected} or {place} is missing in {line}");
    }
    Ok(())
}

#[test]
fn what_is_right_works() -> Result<()> {
    let gateway = start()?;
    let mut client = gateway.client()?;
    let response = client.get("/converted", &[])?;
    let echoed = ["x-0", "x-1", "x-2", "x-3"].map(|name| response.echoed(name));
    assert_eq!(echoed, ["42", "1.5", "true", "7"].map(|value| Some(value.to_owned())));
    let response = client.send("POST", "/surrogate", &[], br#"{"name": "\ud800"}"#)?;
    assert_eq!((response.status, response.echoed("x-name").as_deref()), (200, Some("a\u{fffd}b")));
    assert_eq!(client.get("/then", &[])?.echoed("x-then").as_deref(), Some("1"));
    assert_eq!(client.get("/microtask", &[])?.echoed("x-microtask").as_deref(), Some("1"));
    for (path, status, text) in [
        ("/async", 200, "[1,2,3]"),
        ("/async-iteration", 200, "[2,4,6]"),
        ("/async-caught", 200, "RangeError: as expected"),
        ("/caught", 400, "TypeError: header x: the value must be a string, a finite number or a boolean, not null"),
        ("/bytes", 200, "\0\0"),
        ("/form", 200, "a=b+c"),
    ] {
        let response = client.get(path, &[])?;
        assert_eq!((response.status, response.text().as_str()), (status, text), "{path}");
    }
    let source = fs::read_to_string(repository().join(FIXTURE).join("src/filter.ts"))?;
    let line = source.lines().position(|line| line.contains("throw new Refused")).context("a line")? + 1;
    let stack = client.get("/stack", &[])?.text();
    let expected = format!("Refused: no entry\n    at refuses (src/filter.ts:{line})\n");
    assert!(stack.starts_with(&expected) && !stack.contains("user.js"), "{expected} does not begin {stack}");
    let response = client.get("/id", &["x-raw: caf\u{e9}"])?;
    assert_eq!((&response.json()[1], &response.json()[2]), (&json!([99, 97, 102, 195, 169]), &json!(true)));
    assert_eq!(response.json()[0].as_str().map(str::len), Some(32));
    assert_eq!(client.get("/log", &[])?.status, 200);
    let response = client.get("/converted", &["x-probe: none"])?;
    assert_eq!(response.header("x-client"), Some("true"), "an asynchronous onResponse edits");
    Ok(())
}

#[test]
fn json_is_parsed_or_refused_by_an_error_that_can_be_caught() -> Result<()> {
    let gateway = start()?;
    let mut client = gateway.client()?;
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    for (body, status, text) in [
        (b"\xef\xbb\xbf{}".to_vec(), 200, Some("{}")),
        (b"[\"\xff\"]".to_vec(), 200, Some("[\"\u{fffd}\"]")),
        (vec![b'['; 5_000], 400, Some("not JSON")),
        (vec![b'['; 1_000_000], 400, Some("not JSON")),
        (deep(1_000), 200, None),
        (deep(1_000_000), 400, Some("not JSON")),
    ] {
        let response = client.send("POST", "/json", &[], &body)?;
        assert_eq!(response.status, status, "{}: {}", body.len(), response.text());
        assert!(text.is_none_or(|text| text == response.text()), "{}", response.text());
    }
    let text = "\u{feff}aé€😀".repeat(2000);
    let response = client.send("POST", "/text", &[], text.as_bytes())?;
    assert_eq!(response.text(), text[3..], "only the first byte order mark is dropped");
    Ok(())
}

#[test]
fn recursion_without_end_is_an_error_that_can_be_caught() -> Result<()> {
    let gateway = start()?;
    let mut client = gateway.client()?;
    for code in [
        "(function f(){return 1+f()})()",
        "(f=>f(f))(f=>[1].map(()=>f(f)))",
        "(f=>f(f))(f=>String({toString:()=>f(f)}))",
        "(f=>f(f))(f=>[2,1].sort(()=>f(f)))",
        "(f=>f(f))(f=>'a'.replace(/a/,()=>f(f)))",
        "(f=>f(f))(f=>({get a(){return f(f)}}).a)",
        "(f=>f(f))(f=>JSON.stringify({toJSON:()=>f(f)}))",
        "(f=>f(f))(f=>new Function('f','return f(f)')(f))",
        "JSON.stringify(Array.from({length:100000}).reduce(a=>[a],[]))",
        "JSON.parse('['.repeat(1e5)+']'.repeat(1e5),(k,v)=>v)",
        "Array.from({length:100000}).reduce(a=>[a],[]).flat(Infinity)",
        "structuredClone(Array.from({length:100000}).reduce(a=>[a],[]))",
        "eval('('.repeat(1e5)+'1'+')'.repeat(1e5))",
        "eval('!'.repeat(1e5)+'1')",
        "new RegExp('(?:'.repeat(1e5)+')'.repeat(1e5))",
        "'a' in Array.from({length:100000}).reduce(a=>new Proxy(a,{}),{})",
        "delete Array.from({length:100000}).reduce(a=>new Proxy(a,{}),{}).a",
        "Array.from({length:4000}).reduce(f=>f.bind(null),()=>1)()",
    ] {
        let query: String = code.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let response = client.get(&format!("/deep?{query}"), &[])?;
        let text = response.text();
        let is_caught = ["caught RangeError", "caught SyntaxError", "caught InternalError"].contains(&text.as_str());
        assert!(response.status == 200 && is_caught, "{code}: {} {text}", response.status);
    }
    let query =
        "(function f(n){return n?1+f(n-1):0})(1000)".bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    assert_eq!(client.get(&format!("/deep?{query}"), &[])?.text(), "ok 1000");
    Ok(())
}

#[test]
fn a_key_expires_after_its_time_to_live() -> Result<()> {
    let gateway = start()?;
    assert_eq!(gateway.get("/ttl-set", &[])?.status, 200);
    assert_eq!(gateway.get("/ttl-get", &[])?.json(), json!(["v", "A"]));
    std::thread::sleep(Duration::from_millis(1700));
    assert_eq!(gateway.get("/ttl-get", &[])?.json(), json!(["gone", "A"]));
    Ok(())
}

#[test]
fn a_package_may_read_clock_and_chance_while_it_is_loaded() -> Result<()> {
    let loaded = start()?.get("/package-loaded", &[])?.json();
    assert_eq!((&loaded["loadedAt"], &loaded["files"]), (&json!(1_577_836_800_000_u64), &json!("undefined")));
    assert_eq!((&loaded["mode"], &loaded["global"]), (&json!("production"), &json!("object")));
    Ok(())
}

/// Writes a filter with this source, and returns its folder.
fn write_filter(folder: &Path, name: &str, source: &str) -> Result<()> {
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("filter.toml"), format!("name = \"{name}\"\nversion = \"0.1.0\"\n[request]\n"))?;
    fs::write(folder.join("src/filter.ts"), source)?;
    Ok(())
}

/// Builds the filters in or below `folder`. Returns whether all were built, and the output.
fn build(folder: &Path, out: &Path) -> Result<(bool, String)> {
    build_within(folder, out, 60)
}

/// Like [`build`], for code at module level that may run for so many seconds.
fn build_within(folder: &Path, out: &Path, seconds: u32) -> Result<(bool, String)> {
    let mut command = Command::new(repository().join("target/release/componentize"));
    command.arg("build").arg(folder).arg("--out-dir").arg(out);
    command.env("COMPONENTIZE_EVALUATION_MS", format!("{seconds}000"));
    let output = command.output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}

const IMPORT: &str = "import { reply, type Reply, type Request } from \"@witgate/filter\";\n";

#[test]
fn a_mistake_is_refused_at_build_with_file_line_and_advice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let handler = "export function onRequest(request: Request): Reply | void {}\n";
    let cases = [
        (
            "object",
            format!(
                "{IMPORT}export function onRequest(request: Request) {{\n  return {{ status: 200, body: \"a\" }};\n}}"
            ),
            "src/filter.ts:2: error TS1360: onRequest is no OnRequest: it must be (request: Request) => Reply | void",
        ),
        (
            "number",
            "export const onRequest = async () => 5;".into(),
            "src/filter.ts:1: error TS1360: onRequest is no OnRequest",
        ),
        (
            "no-handler",
            "export const other = 1;".into(),
            "src/filter.ts: does not export onRequest, but filter.toml has [request]",
        ),
        (
            "timer",
            format!("{IMPORT}{handler}setTimeout(() => 1, 5);"),
            "src/filter.ts(3,1): error TS2304: setTimeout: a filter has no timers",
        ),
        ("request", format!("{IMPORT}{handler}void fetch(\"/\");"), "fetch: add services = "),
        (
            "environment",
            format!("{IMPORT}{handler}export const e = process.env[\"A\"];"),
            "process: a filter has no process and no environment: use config",
        ),
        (
            "locale",
            format!("{IMPORT}{handler}export const f = new Intl.NumberFormat(\"de\");"),
            "src/filter.ts:3: Intl: a filter has no locale data",
        ),
        (
            "files",
            format!("import {{ readFileSync }} from \"node:fs\";\n{IMPORT}{handler}readFileSync(\"a\");"),
            "node:fs is a module of Node.js: a filter has no file system",
        ),
        (
            "missing",
            format!("import x from \"not-installed\";\n{IMPORT}{handler}x();"),
            "there is no package not-installed: run `npm install not-installed`",
        ),
        (
            "other-sdk",
            format!("{IMPORT}import {{ log }} from \"witgate\";\n{handler}log();"),
            "src/filter.ts(2,21): error TS2307: there is no witgate: the SDK is \"@witgate/filter\"",
        ),
        (
            "no-file",
            format!("{IMPORT}{handler}import rules from \"./Filter.ts\";\nrules();"),
            "./Filter.ts: the file is named filter.ts; upper and lower case differ",
        ),
        (
            "no-url",
            "import type { Request } from \"@witgate/filter\";\nexport const onRequest = (r: Request): void => void r.url;".into(),
            "Property 'url' does not exist on type 'Request'. (use request.path and request.query)",
        ),
        (
            "header-index",
            "import type { Request } from \"@witgate/filter\";\nexport const onRequest = (r: Request): void => void r.headers[\"a\"];".into(),
            "(headers is a list of fields: use header(\"name\"))",
        ),
        (
            "module-cause",
            format!("{IMPORT}{handler}throw new RangeError(\"outer\", {{ cause: new TypeError(\"inner\") }});"),
            "src/filter.ts:3: the code at module level threw: RangeError: outer; caused by TypeError: inner",
        ),
        (
            "module-text",
            format!("{IMPORT}{handler}throw \"a text\";"),
            "the code at module level threw: \"a text\": throw an Error, which knows its line",
        ),
        (
            "top-await",
            format!("{IMPORT}{handler}await Promise.resolve(1);"),
            "move it into the handler, which may be async",
        ),
        (
            "module-throw",
            format!("{IMPORT}{handler}const table: Record<string, string> = {{}};\n(table[\"a\"] as string).trim();"),
            "src/filter.ts:4: the code at module level threw: ",
        ),
        (
            "module-gateway",
            format!(
                "import {{ config }} from \"@witgate/filter\";\n{IMPORT}{handler}export const key = config.get(\"a\");"
            ),
            "src/filter.ts:4: the code at module level threw: Error: config.get needs the gateway",
        ),
        (
            "module-recursion",
            format!("{IMPORT}{handler}const recurse = (): number => 1 + recurse();\nrecurse();"),
            "src/filter.ts: the code at module level ended the interpreter (call stack exhausted)",
        ),
        (
            "module-secret",
            format!("{IMPORT}{handler}export const id = crypto.randomUUID();"),
            "src/filter.ts:3: the code at module level threw: Error: crypto.randomUUID cannot be used while the filter is built",
        ),
    ];
    for (name, source, _) in &cases {
        write_filter(&folder.path().join(name), name, source)?;
    }
    let (is_built, text) = build(folder.path(), &folder.path().join("out"))?;
    assert!(!is_built, "{text}");
    for (name, _, expected) in &cases {
        let own =
            text.split(&format!("typescript/{name}  not built")).nth(1).with_context(|| format!("{name} in {text}"))?;
        let own = own.split("not built").next().unwrap_or_default();
        assert!(own.contains(expected), "{name}: {expected} is not in {own}");
        assert!(!own.contains("at async") && !own.contains("node:internal"), "{name} shows the builder's stack: {own}");
    }
    Ok(())
}

#[test]
fn an_endless_loop_at_module_level_ends_with_a_message() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_filter(folder.path(), "endless", "export function onRequest(): void {}\nfor (;;);\n")?;
    let (is_built, text) = build_within(folder.path(), &folder.path().join("out"), 2)?;
    assert!(!is_built && text.contains("src/filter.ts: the code at module level did not end within 2 s"), "{text}");
    Ok(())
}

#[test]
fn a_component_names_no_folder_and_is_built_again_when_an_input_changes() -> Result<()> {
    let root = tempfile::tempdir()?;
    let folder = root.path().join("here");
    let source = format!(
        "{IMPORT}import {{ two }} from \"./dist/two.ts\";\n\
         export function onRequest(_: Request): Reply {{ return reply(200, two); }}"
    );
    write_filter(&folder, "same", &source)?;
    fs::create_dir_all(folder.join("src/dist"))?;
    let input = folder.join("src/dist/two.ts");
    fs::write(&input, "export const two = 2;\n")?;
    let out = root.path().join("out");
    let (is_built, text) = build(&folder, &out)?;
    ensure!(is_built, "{text}");
    let component = fs::read(out.join("same.wasm"))?;
    for path in [root.path().to_string_lossy(), repository().to_string_lossy()] {
        assert!(!component.windows(path.len()).any(|window| window == path.as_bytes()), "{path} is in the component");
    }
    let elsewhere = root.path().join("there/in/another/folder");
    write_filter(&elsewhere, "same", &source)?;
    fs::create_dir_all(elsewhere.join("src/dist"))?;
    fs::copy(&input, elsewhere.join("src/dist/two.ts"))?;
    let (is_built, text) = build(&elsewhere, &root.path().join("out-too"))?;
    ensure!(is_built, "{text}");
    assert!(fs::read(root.path().join("out-too/same.wasm"))? == component, "two folders make different bytes");
    // A file in a folder that tools usually write is a source all the same.
    assert!(build(&folder, &out)?.1.contains("unchanged"));
    fs::write(&input, "export const two = 3;\n")?;
    let (_, text) = build(&folder, &out)?;
    assert!(text.contains("MiB in"), "a changed input is built again: {text}");
    Ok(())
}

#[test]
fn a_mistake_in_the_response_phase_is_logged_with_its_line_too() -> Result<()> {
    let gateway = start()?;
    let source = fs::read_to_string(repository().join(FIXTURE).join("src/filter.ts"))?;
    for (count, (probe, expected)) in [
        ("response-status", "RangeError: the status must be a whole number from 200 to 599, not 65736"),
        ("response-header", "TypeError: header x-a: the value must be a string"),
        ("response-body", "TypeError: the response has no body here: set `body = "),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(gateway.get("/", &[&format!("x-probe: {probe}")])?.status, 502);
        let lines = gateway.wait_logged("a filter failed", count + 1);
        let line = source.lines().position(|line| line.contains(probe)).context("a line")? + 1;
        let place = format!("(src/filter.ts:{line})");
        assert!(lines[count].contains(expected) && lines[count].contains(&place), "{place}: {}", lines[count]);
    }
    Ok(())
}
