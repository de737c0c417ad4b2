//! The shipped filters in TypeScript, Python and Rust, as an operator runs them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use harness::{Gateway, Setup};

/// The same filter in each language, optimized as by default and as the language's tools built it.
const API_KEYS: [&str; 5] = [
    "rust/api-key",
    "typescript/api-key",
    "python/api-key",
    "tests/typescript/unoptimized/api-key",
    "tests/python/unoptimized/api-key",
];

/// A gateway with this filter. `more` is appended to the filter's configuration.
fn start(guest: &str, more: &str) -> Result<Gateway> {
    let yaml = format!(
        "timeouts: {{filters: 3s}}\nupstreams: {{echo: {{builtin: echo}}}}\nfilters: {{f: {{source: f.wasm, timeout: 2s{more}}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
    );
    Setup::new(&yaml)?.with_guest("f.wasm", guest)?.start()
}

#[test]
fn api_key_behaves_the_same_in_every_language_optimized_or_not() -> Result<()> {
    for language in API_KEYS {
        let gateway = start(language, ", config: {key: s3cret}")?;
        let mut client = gateway.client()?;
        for headers in [vec![], vec!["x-api-key: wrong"]] {
            let response = client.get("/", &headers)?;
            assert_eq!(
                (response.status, response.header("content-type")),
                (401, Some("application/json")),
                "{language}"
            );
            assert_eq!(response.json(), serde_json::json!({"error": "missing or wrong api key"}), "{language}");
        }
        let response = client.get("/", &["x-api-key: s3cret", "cookie: a=1", "x-other: b"])?;
        let echoed = ["x-user", "cookie", "authorization", "x-other"].map(|name| response.echoed(name));
        assert_eq!(echoed, [Some("alice".into()), Some("REDACTED".into()), None, Some("b".into())], "{language}");
    }
    Ok(())
}

/// The paths of tests/fixtures/python/corpus, each of which executes another kind of Python code.
const CORPUS: [&str; 15] = [
    "nothing",
    "headers",
    "json_round",
    "regex",
    "dates",
    "table",
    "failures",
    "text",
    "classes",
    "generators",
    "containers",
    "digests",
    "chance",
    "large",
    "deep",
];

#[test]
fn python_code_behaves_the_same_optimized_or_not() -> Result<()> {
    let gateways = [start("tests/python/corpus", "")?, start("tests/python/unoptimized/corpus", "")?];
    let body = br#"{"name": "ann", "items": [{"id": 1}, {"id": 2.5, "none": null}]}"#;
    let headers = ["user-agent: Curl/8.1 (x) Lib/2", "accept: text/html,*/*", "cookie: a=1", "x-api-key: s3cret"];
    for path in CORPUS.into_iter().chain(CORPUS.into_iter().rev()) {
        let [optimized, original] = [&gateways[0], &gateways[1]].map(|gateway| {
            let response = gateway.client()?.send("POST", &format!("/{path}"), &headers, body)?;
            let text = if path == "nothing" { response.json()["body"].to_string() } else { response.text() };
            anyhow::Ok((response.status, text))
        });
        let optimized = optimized?;
        assert_eq!(optimized.0, 200, "{path}: {}", optimized.1);
        assert_eq!(optimized, original?, "{path}");
    }
    Ok(())
}

#[test]
fn clocks_and_randomness_work_and_do_not_repeat() -> Result<()> {
    for language in ["typescript", "python"] {
        let gateway = start(&format!("tests/{language}/probe"), "")?;
        let mut client = gateway.client()?;
        let (a, b) = (client.get("/", &[])?, client.get("/", &[])?);
        assert_eq!(a.status, 200, "{language}: {}", a.text());
        let (a, b) = (a.json(), b.json());
        for key in ["random", "choice", "own", "uuid", "secret", "urandom"] {
            assert!(a[key].is_null() || a[key] != b[key], "{language}: {key} repeats: {}", a[key]);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        assert!((now - a["now"].as_i64().context("now is no integer")?).abs() < 60_000, "{language}: {}", a["now"]);
        assert_eq!(a["isDate"], true, "{language}");
        if language == "typescript" {
            assert_eq!((&a["text"], &a["bytes"], &a["fixed"]), (&"aé€😀\u{fffd}".into(), &13.into(), &2020.into()));
        }
        gateway.wait_logged("probe", 1);
    }
    Ok(())
}

#[test]
fn an_exception_reaches_the_log_with_the_authors_file_and_line() -> Result<()> {
    for (language, expected) in [
        ("typescript", "TypeError: on purpose (src/filter.ts:29)"),
        ("python", "ValueError: on purpose (filter.py:51 in on_purpose)"),
    ] {
        let gateway = start(&format!("tests/{language}/probe"), "")?;
        let response = gateway.get("/", &["x-fail: throw"])?;
        assert_eq!((response.status, response.text().contains("purpose")), (502, false), "{language}");
        harness::wait_until(expected, || {
            let lines = gateway.logged("a filter failed");
            lines.iter().any(|line| line.contains(expected) && line.contains("\"kind\":\"error\""))
        });
    }
    Ok(())
}

#[test]
fn a_runaway_filter_fails_only_its_own_request() -> Result<()> {
    for language in ["typescript", "python"] {
        let gateway = start(&format!("tests/{language}/probe"), "")?;
        assert_eq!(gateway.get("/", &["x-fail: loop"])?.status, 504, "{language}");
        assert_eq!(gateway.get("/", &["x-fail: memory"])?.status, 502, "{language}");
        assert_eq!(gateway.get("/", &["x-fail: recursion"])?.status, 502, "{language}");
        assert_eq!(gateway.get("/", &[])?.status, 200, "{language}");
    }
    Ok(())
}

#[test]
fn redact_removes_credentials_and_personal_data() -> Result<()> {
    let json = br#"{"mail":"ann@example.com","card":"4111 1111 1111 1111","token":"x","n":1}"#;
    let clean = r#"{"mail": "REDACTED", "card": "REDACTED", "token": "REDACTED", "n": 1}"#;
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    for guest in ["python/redact", "tests/python/unoptimized/redact"] {
        let gateway = start(guest, "")?;
        let mut client = gateway.client()?;
        let headers = ["content-type: application/json", "authorization: Bearer x"];
        for (body, expected) in
            [(&json[..], clean), (b"{broken", "{broken"), (deep.as_bytes(), &deep), (b"[1, 2]", "[1, 2]")]
        {
            let response = client.send("POST", "/", &headers, body)?;
            assert_eq!(response.json()["body"].as_str().context("the echo shows no body")?, expected, "{guest}");
            assert_eq!(response.echoed("authorization").as_deref(), Some("REDACTED"), "{guest}");
        }
    }
    Ok(())
}

#[test]
fn security_headers_are_added_to_responses() -> Result<()> {
    let gateway = start("rust/security-headers", ", config: {referrer-policy: off, x-frame-options: SAMEORIGIN}")?;
    let response = gateway.get("/", &[])?;
    assert_eq!(response.header("x-frame-options"), Some("SAMEORIGIN"));
    assert_eq!(
        (response.header("referrer-policy"), response.header("x-content-type-options")),
        (None, Some("nosniff"))
    );
    Ok(())
}

#[test]
fn rate_limit_rejects_exactly_the_requests_above_the_limit() -> Result<()> {
    const LIMIT: usize = 40;
    let gateway = start(
        "typescript/rate-limit",
        &format!(", capabilities: [keyvalue], config: {{limit: {LIMIT}, window_ms: 86400000}}"),
    )?;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..=LIMIT)
            .map(|_| scope.spawn(|| gateway.get("/", &[]).map(|response| response.status).unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), LIMIT);
    Ok(())
}

#[test]
fn a_body_must_fit_the_schema() -> Result<()> {
    let schema = "{type: object, required: [item], properties: {item: {type: string}, count: {type: integer}}}";
    let gateway = start("typescript/json-schema", &format!(", config: {{schema: {schema}}}"))?;
    let send = |content_type: &str, body: &str| {
        gateway.client()?.send("POST", "/", &[&format!("content-type: {content_type}")], body.as_bytes())
    };
    let fits = send("application/json", r#"{"item": "a", "count": 2}"#)?;
    assert_eq!((fits.status, fits.json()["body"].as_str()), (200, Some(r#"{"item": "a", "count": 2}"#)));
    let wrong = send("application/json", r#"{"count": "two"}"#)?;
    assert_eq!((wrong.status, wrong.json()["mistakes"].as_array().map(Vec::len)), (422, Some(2)));
    assert_eq!(send("application/json", "{")?.status, 400);
    assert_eq!(send("text/plain", "{}")?.status, 415);
    assert_eq!(gateway.get("/", &[])?.status, 200);
    Ok(())
}

#[test]
fn a_cached_response_does_not_reach_the_upstream() -> Result<()> {
    let upstream = |policy: &str| {
        let yaml = format!(
            "upstreams: {{echo: {{builtin: echo}}}}\n\
             routes: [{{upstream: echo, headers: {{response: {{set: {{cache-control: {policy}}}}}}}}}]"
        );
        Setup::new(&yaml)?.start()
    };
    for (policy, expected) in [("max-age=60", "hit"), ("no-store", "miss")] {
        let server = upstream(policy)?;
        let yaml = format!(
            "timeouts: {{filters: 3s}}\nupstreams: {{api: {{endpoints: [\"http://{}\"]}}}}\n\
             filters: {{f: {{source: f.wasm, timeout: 2s, capabilities: [keyvalue]}}}}\n\
             routes: [{{filters: [f], upstream: api}}]",
            server.address
        );
        let gateway = Setup::new(&yaml)?.with_guest("f.wasm", "typescript/response-cache")?.start()?;
        let first = gateway.get("/list?a=1", &[])?;
        assert_eq!((first.status, first.header("x-cache")), (200, Some("miss")), "{policy}");
        let second = gateway.get("/list?a=1", &[])?;
        assert_eq!((second.status, second.header("x-cache")), (200, Some(expected)), "{policy}");
        // The echo of the upstream shows which request it was.
        assert_eq!(second.body == first.body, expected == "hit", "{policy}");
        assert_eq!(second.header("content-type"), first.header("content-type"), "{policy}");
        assert_eq!(gateway.get("/list?a=1", &["cookie: a=1"])?.header("x-cache"), None, "{policy}");
        assert_eq!(gateway.get("/list?a=2", &[])?.header("x-cache"), Some("miss"), "{policy}");
    }
    Ok(())
}

#[test]
fn clients_are_told_apart_by_their_networks() -> Result<()> {
    let yaml = "trusted_proxies: [127.0.0.1]\ntimeouts: {filters: 3s}\nupstreams: {echo: {builtin: echo}}\n\
        filters:\n  f:\n    source: f.wasm\n    timeout: 2s\n    config:\n\
        \x20     regions: {office: [192.0.2.0/24], lab: [192.0.2.128/25], far: [\"2001:db8::/32\"]}\n      deny: [far]\n\
        routes: [{filters: [f], upstream: echo}]";
    let gateway = Setup::new(yaml)?.with_guest("f.wasm", "python/ip-list")?.start()?;
    for (ip, status, region) in [
        ("192.0.2.7", 200, Some("office")),
        ("192.0.2.200", 200, Some("lab")),
        ("203.0.113.1", 200, Some("other")),
        ("2001:db8::9", 403, None),
    ] {
        let response = gateway.get("/", &[&format!("x-forwarded-for: {ip}"), "x-region: forged"])?;
        let echoed = if status == 200 { response.echoed("x-region") } else { None };
        assert_eq!((response.status, echoed.as_deref()), (status, region), "{ip}");
    }
    Ok(())
}

#[test]
fn the_examples_in_the_shipped_filters_hold() -> Result<()> {
    for guest in ["typescript/json-schema", "typescript/response-cache", "python/ip-list"] {
        let file = harness::repository().join(format!("guests/dist/{guest}.wasm"));
        let (code, text) = harness::witgate([std::ffi::OsStr::new("test"), file.as_os_str()])?;
        assert_eq!(code, Some(0), "{guest}: {text}");
        assert!(text.contains('3'), "{guest}: all three examples ran: {text}");
    }
    Ok(())
}
