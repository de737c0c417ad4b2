//! Ten typical mistakes of a first gateway.yaml, and what `check` says about them.

use anyhow::{Result, ensure};
use harness::Setup;

/// What the newcomer wrote, and the parts of the answer that help: line, key, advice.
const MISTAKES: &[(&str, &str, &[&str])] = &[
    (
        "a tab in the indentation",
        "upstreams:\n\tapi: {endpoints: [\"http://127.0.0.1:9\"]}\nroutes: [{upstream: api}]",
        &[":7: ", "tab"],
    ),
    (
        "an endpoint without a scheme",
        "upstreams: {api: {endpoints: [\"127.0.0.1:3000\"]}}\nroutes: [{upstream: api}]",
        &[":6: upstreams.api.endpoints[0]", "write http://"],
    ),
    (
        "a path in an endpoint",
        "upstreams: {api: {endpoints: [\"http://127.0.0.1:3000/v1\"]}}\nroutes: [{upstream: api}]",
        &[":6: upstreams.api.endpoints[0]", "rewrite"],
    ),
    (
        "a number without a unit",
        "upstreams: {api: {endpoints: [\"http://127.0.0.1:3000\"], timeout: 30}}\nroutes: [{upstream: api}]",
        &[":6: upstreams.api.timeout: \"30\": write a duration such as 500ms, 10s"],
    ),
    (
        "a path as the match",
        "upstreams: {echo: {builtin: echo}}\nroutes: [{match: /api, upstream: echo}]",
        &[":7: routes[0].match", "{path: /api}"],
    ),
    (
        "a wildcard in a path",
        "upstreams: {echo: {builtin: echo}}\nroutes: [{match: {path: /api/*}, upstream: echo}]",
        &[":7: routes[0].match.path", "a prefix such as /v1 also matches all below it"],
    ),
    (
        "keys of nginx",
        "upstreams: {echo: {builtin: echo}}\nroutes: [{location: /, proxy_pass: echo}]",
        &[":7: routes[0].location: unknown key", "routes[0].upstream: is missing"],
    ),
    (
        "a filter in the route that is not defined",
        "upstreams: {echo: {builtin: echo}}\nroutes: [{filters: [api-key], upstream: echo}]",
        &[":7: routes[0].filters[0]: api-key: there is no such filter: define it under filters"],
    ),
    (
        "a filter given as a path",
        "upstreams: {echo: {builtin: echo}}\nfilters: [api-key.wasm]\nroutes: [{upstream: echo}]",
        &[":7: filters", "a mapping from names", "{api-key: {source: api-key.wasm}}"],
    ),
    (
        "routes as a mapping",
        "upstreams: {echo: {builtin: echo}}\nroutes: {/api: echo}",
        &[":7: routes: expected a list", "- "],
    ),
];

#[test]
fn check_names_line_key_and_advice() -> Result<()> {
    let mut unclear = vec![];
    for (what, yaml, expected) in MISTAKES {
        let (code, text) = Setup::new(yaml)?.check()?;
        println!("--- {what}\n{text}");
        let missing: Vec<_> = expected.iter().filter(|part| !text.contains(**part)).collect();
        if code != Some(1) || !missing.is_empty() {
            unclear.push(format!("{what}: {missing:?} is not in {text}"));
        }
    }
    ensure!(unclear.is_empty(), "{}", unclear.join("\n"));
    Ok(())
}
