//! The explanations of the last failures, and the decisions that holders of the debug token see.

use anyhow::{Context as _, Result};
use harness::wat::{filter, header_setter};
use harness::{Gateway, Setup, Upstream, wait_until};
use serde_json::Value;

/// The newest entry of a list of `/exchanges`, once it contains `text`.
fn newest(gateway: &Gateway, list: &str, text: &str) -> Result<Value> {
    let mut found = None;
    wait_until(text, || {
        let json = gateway.admin("/exchanges?failed").map(|response| response.json()).unwrap_or_default();
        found = json[list].get(0).filter(|entry| entry.to_string().contains(text)).cloned();
        found.is_some()
    });
    found.context("no entry")
}

#[test]
fn each_failure_is_explained_with_its_id() -> Result<()> {
    let (upstream, refusing) = (Upstream::start()?, harness::refusing_address()?);
    let yaml = format!(
        "timeouts: {{filters: 60ms}}\nlimits: {{request_body_bytes: 64KiB}}\n\
         filters: {{trap: {{source: trap.wasm, timeout: 20ms}}, slow: {{source: slow.wasm, timeout: 20ms}}}}\n\
         upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 200ms}}, refused: {{endpoints: [\"http://{refusing}\"]}}}}\n\
         routes:\n\
         - {{match: {{path: /trap}}, filters: [trap], upstream: u}}\n\
         - {{match: {{path: /deadline}}, filters: [slow], upstream: u}}\n\
         - {{match: {{path: /refused}}, upstream: refused}}\n\
         - {{match: {{path: /delay}}, upstream: u}}\n\
         - {{match: {{path: /length}}, upstream: u}}",
        upstream.address
    );
    let gateway = Setup::new(&yaml)?
        .with("trap.wasm", filter("(unreachable)")?)?
        .with("slow.wasm", filter("(loop (br 0)) (i32.const 0)")?)?
        .start()?;
    for (path, body, list, status, kind, advice) in [
        ("/trap", 0, "failed", 502, "trap", "Correct the filter"),
        ("/deadline", 0, "failed", 504, "deadline", "Make the filter faster"),
        ("/refused", 0, "failed", 502, "upstream-connect", "Check that the server runs"),
        ("/delay/1000", 0, "failed", 504, "upstream-timeout", "why the endpoint is slow"),
        ("/length", 100_000, "refused", 413, "body-too-large", "Raise limits.request_body_bytes"),
        ("/nowhere", 0, "refused", 404, "no-route", "Add a route"),
    ] {
        let response = gateway.client()?.send("POST", path, &[], &vec![b'x'; body])?;
        assert_eq!(response.status, status, "{path}");
        let id = response.header("x-request-id").context("no id")?;
        let entry = newest(&gateway, list, id)?;
        assert_eq!((&entry["exchange"]["failure"], &entry["exchange"]["status"]), (&kind.into(), &status.into()));
        let (what, next) = (entry["what"].as_str().unwrap_or_default(), entry["advice"].as_str().unwrap_or_default());
        assert!(what.starts_with(&format!("POST test{path} got status {status}: ")), "{what}");
        assert!(next.contains(advice), "{next}");
    }
    Ok(())
}

#[test]
fn clients_cannot_push_out_the_failures_of_upstreams() -> Result<()> {
    let refusing = harness::refusing_address()?;
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"http://{refusing}\"]}}}}\nroutes: [{{match: {{path: /a}}, upstream: u}}]"
    );
    let gateway = Setup::new(&yaml)?.start()?;
    assert_eq!(gateway.get("/a", &[])?.status, 502);
    let mut client = gateway.client()?;
    for index in 0..600 {
        assert_eq!(client.get(&format!("/{index}"), &[])?.status, 404);
    }
    newest(&gateway, "refused", "/599")?;
    let json = gateway.admin("/exchanges?failed")?.json();
    assert_eq!(json["refused"].as_array().map(Vec::len), Some(256), "the list is bounded");
    assert_eq!(json["failed"][0]["exchange"]["path"], "/a");
    Ok(())
}

#[test]
fn holders_of_the_token_see_the_decisions_of_filters() -> Result<()> {
    let yaml = "telemetry: {debug_token: 0123456789abcdef}\nfilters: {a: {source: a.wasm}, b: {source: b.wasm}}\n\
                upstreams: {echo: {builtin: echo}}\nroutes: [{name: api, filters: [a, b], upstream: echo}]";
    let gateway = Setup::new(yaml)?
        .with("a.wasm", header_setter("x-a", "1", "")?)?
        .with("b.wasm", filter("(i32.const 0)")?)?
        .start()?;
    let response = gateway.get("/", &["x-witgate-debug: 0123456789abcdef"])?;
    let trace = response.header("x-witgate-trace").context("no trace")?;
    for part in [
        "route;name=\"api\"",
        "filter;name=\"a\";version=\"-\";phase=request;action=proceed;edits=1;us=",
        "filter;name=\"b\";version=\"-\";phase=request;action=proceed;edits=0;us=",
        "total;us=",
    ] {
        assert!(trace.contains(part), "{part} is not in {trace}");
    }
    assert_eq!(response.echoed("x-witgate-debug"), None, "the upstream does not get the token");
    for wrong in ["x-witgate-debug: 0123456789abcdeg", "x-witgate-debug: ", "x-other: 1"] {
        let response = gateway.get("/", &[wrong])?;
        assert_eq!((response.header("x-witgate-trace"), response.echoed("x-witgate-debug")), (None, None));
    }
    Ok(())
}
