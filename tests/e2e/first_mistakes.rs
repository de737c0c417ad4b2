//! Typical mistakes of a first gateway.yaml, and what `check` says about them: errors for what is
//! not valid, warnings for what is valid and never works.

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

/// A value in the form of another gateway, as a part of a file, and the advice.
const OTHER_FORMS: &[(&str, &str)] = &[
    ("upstreams: {b: \"http://127.0.0.1:3000\"}", "such as {endpoints: [\"http://10.0.0.1:8080\"]}"),
    ("upstreams: {b: {endpoints: [\"ws://127.0.0.1:3000\"]}}", "write http://127.0.0.1:3000"),
    ("upstreams: {b: {endpoints: [\"grpc://127.0.0.1:3000\"]}}", "and protocol: h2"),
    ("upstreams: {b: {endpoints: [\"http://$HOST:3000\"]}}", "write {env: NAME}"),
    ("upstreams: {b: {endpoints: [\"http://${HOST}:3000\"]}}", "write {env: NAME}"),
    ("upstreams: {b: {endpoints: [\"http://::1:3000\"]}}", "write http://[::1]:3000"),
    ("upstreams: {b: {endpoints: [\"http://a+b:3000\"]}}", "neither a DNS name nor an IP address"),
    ("upstreams: {b: {endpoints: [{env: HOST, default: a}]}}", "a reference has no default"),
    ("upstreams: {b: {endpoints: [\"http://h:1\"], retries: 3}}", "such as {attempts: 3"),
    ("upstreams: {b: {endpoints: [\"http://h:1\"], retries: {on: 5xx}}}", "502, 503, 504"),
    ("upstreams: {b: {endpoints: [\"http://h:1\"], health_check: /h}}", "such as {path: /healthz}"),
    ("upstreams: {b: {endpoints: [\"http://h:1\"], health_check: {path: /, status: 2xx}}}", "write the range 200-299"),
    ("upstreams: {b: {endpoints: [\"http://h:1\"], balance: least_conn}}", "write least_requests"),
    ("upstreams: {b: {endpoints: [\"http://h:1\"], balance: ip_hash}}", "write {hash: client_ip}"),
    ("upstreams: {b: {endpoints: [\"http://h:1\"], protocol: grpc}}", "also for gRPC"),
    ("upstreams: {b: {endpoints: [\"https://h:1\"], tls: {insecure_skip_verify: true}}}", "ca: ca.pem"),
    ("upstreams: {b: {endpoints: [\"https://h:1\"], tls: false}}", "https:// in endpoints"),
    ("routes: [{match: {host: [a.test, b.test]}, upstream: a}]", "write a route for each"),
    ("routes: [{match: {methods: [ANY]}, upstream: a}]", "remove the key methods"),
    ("routes: [{upstream: a, cors: true}]", "such as {origins:"),
    ("routes: [{upstream: a, compression: gzip}]", "such as {} for the defaults"),
    ("routes: [{upstream: a, rate_limit: 10r/s}]", "such as {limit: 10, window: 1s}"),
    ("routes: [{redirect: \"https://b.test/\"}]", "such as {scheme: https, host: b.example.com"),
    ("routes: [{redirect: {path: \"https://b.test/x\"}}]", "no scheme and no host: write /x"),
    ("routes: [{respond: ok}]", "such as {status: 200, body: ok}"),
    ("routes: [{upstream: a, rewrite: {host: $host}}]", "variables have no meaning"),
    ("routes: [{upstream: a, headers: {response: {remove: [\"x-*\"]}}}]", "write the name of each field"),
];

/// What is valid and never has the effect that its author expects.
const NEVER_WORKS: &[(&str, &str)] = &[
    ("routes: [{match: {headers: {cookie: a=1}}, upstream: a}]", "(^|; )a=1(;|$)"),
    ("routes: [{match: {path: {regex: \"^/api/*\"}}, upstream: a}]", "repeats the slash"),
    ("routes: [{match: {query: {\"?a\": \"1\"}}, upstream: a}]", "the name of a parameter"),
    ("routes: [{match: {host: a.test}, redirect: {host: a.test}}]", "redirects again"),
    ("routes: [{upstream: a, headers: {request: {set: {x-ip: $remote_addr}}}}]", "sent as it is"),
    ("routes: [{upstream: a, rate_limit: {limit: 1, key: {header: x-forwarded-for}}}]", "client_ip"),
    ("telemetry: {traces: {sample: 1}}", "nothing is traced"),
    ("telemetry: {otlp: {endpoint: \"http://127.0.0.1:4318\", protocol: grpc}}", "write protocol: http"),
];

#[test]
fn check_names_line_key_and_advice() -> Result<()> {
    let mistakes = MISTAKES.iter().map(|(what, yaml, expected)| (*what, (*yaml).to_owned(), expected.to_vec(), 1));
    let forms = OTHER_FORMS.iter().map(|(part, advice)| (*part, beside_others(part), vec![*advice], 1));
    let never = NEVER_WORKS.iter().map(|(part, advice)| (*part, beside_others(part), vec![*advice], 0));
    let mut unclear = vec![];
    for (what, yaml, expected, code) in mistakes.chain(forms).chain(never) {
        let (ended, text) = Setup::new(&yaml)?.check()?;
        println!("--- {what}\n{text}");
        let missing: Vec<_> = expected.iter().filter(|part| !text.contains(**part)).collect();
        if ended != Some(code) || !missing.is_empty() {
            unclear.push(format!("{what}: {missing:?} is not in {text}"));
        }
    }
    ensure!(unclear.is_empty(), "{}", unclear.join("\n"));
    Ok(())
}

#[test]
fn the_password_in_a_url_is_not_printed() -> Result<()> {
    let (code, text) =
        Setup::new(&beside_others("upstreams: {b: {endpoints: [\"http://u:hunter2@h.test\"]}}"))?.check()?;
    ensure!(code == Some(1) && text.contains("authorization") && !text.contains("hunter2"), "{text}");
    Ok(())
}

/// A whole file with this part: an upstream `a` and a route to it, unless the part has them.
fn beside_others(part: &str) -> String {
    let upstream = "a: {endpoints: [\"http://127.0.0.1:9\"]}";
    let (upstreams, rest) = match part.strip_prefix("upstreams: {") {
        Some(own) => (format!("upstreams: {{{upstream}, {own}"), ""),
        None => (format!("upstreams: {{{upstream}}}"), part),
    };
    let routes = if part.starts_with("routes:") { "" } else { "routes: [{upstream: a}]" };
    format!("{upstreams}\n{rest}\n{routes}\n")
}
