//! Reuse of instances. With `reuse: N` an instance serves up to N calls, one at a time, until a
//! call fails, its version is replaced or it idles for too long. Without `reuse` it serves one
//! call, and the gateway may create it before that call.

use std::time::Duration;

use anyhow::Result;
use harness::wat::{component, responder, state_reporter};
use harness::{Gateway, Setup, wait_until, wait_up_to};
use rustix::process::Signal;
use serde_json::json;

/// A filter that reports how many calls its instance served before, up to nine, then executes
/// `after`.
fn counting(after: &str) -> Result<Vec<u8>> {
    state_reporter(
        "(global $n (mut i32) (i32.const 0))",
        &["(global.get $n)"],
        &format!("(global.set $n (i32.add (global.get $n) (i32.const 1))) {after}"),
    )
}

/// A gateway with one worker thread. `keys` is appended to the filter's configuration.
fn start(filter: Vec<u8>, keys: &str) -> Result<Gateway> {
    let yaml = format!(
        "upstreams: {{echo: {{builtin: echo}}}}\nfilters: {{f: {{source: f.wasm{keys}}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
    );
    Setup::new(&yaml)?.workers(1).with("f.wasm", filter)?.start()
}

/// The bodies of so many responses on one connection. A status other than 200 stands for its body.
fn bodies(gateway: &Gateway, calls: usize) -> Result<Vec<String>> {
    let mut client = gateway.client()?;
    let call = |_| {
        client
            .get("/", &[])
            .map(|response| if response.status == 200 { response.text() } else { response.status.to_string() })
    };
    (0..calls).map(call).collect()
}

#[test]
fn an_instance_serves_as_many_calls_as_configured() -> Result<()> {
    for (keys, expected) in [("", ["0", "0", "0", "0", "0"]), (", reuse: 3", ["0", "1", "2", "0", "1"])] {
        assert_eq!(bodies(&start(counting("")?, keys)?, 5)?, expected, "{keys}");
    }
    Ok(())
}

#[test]
fn an_instance_is_created_before_its_call_unless_that_runs_filter_code() -> Result<()> {
    let starting = state_reporter(
        "(global $n (mut i32) (i32.const 0)) (func $start (global.set $n (i32.const 5))) (start $start)",
        &["(global.get $n)"],
        "(global.set $n (i32.const 7))",
    )?;
    for (filter, expected, idle) in [(counting("")?, "0", 1), (starting, "5", 0)] {
        let gateway = start(filter, "")?;
        for _ in 0..5 {
            assert_eq!(bodies(&gateway, 3)?, [expected; 3]);
            std::thread::sleep(Duration::from_millis(20));
            wait_until("the thread has prepared an instance", || {
                kept_instances(&gateway).is_ok_and(|kept| kept == idle)
            });
        }
        gateway.replace("f.wasm", counting("(nop)")?)?;
        wait_until("the new version serves", || bodies(&gateway, 1).is_ok_and(|bodies| bodies == ["0"]));
        wait_up_to(Duration::from_secs(30), "idle instances are dropped", || {
            gateway.metric("witgate_instances").is_ok_and(|n| n == 0.0)
        });
    }
    Ok(())
}

#[test]
fn an_instance_is_not_reused_after_any_failure() -> Result<()> {
    let invalid = "(i32.store16 (i32.const 1032) (i32.const 99))";
    let error = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 4096)) (i32.store (i32.const 1032) (i32.const 1))";
    for (failing, status) in [
        ("(unreachable)", "502"),
        ("(loop $l (br $l))", "504"),
        (invalid, "502"),
        (error, "502"),
        ("(drop (memory.grow (i32.const 1000)))", "502"),
    ] {
        let filter = counting(&format!("(if (i32.eq (global.get $n) (i32.const 3)) (then {failing}))"))?;
        let gateway = start(filter, ", reuse: 100, memory: 1MiB")?;
        assert_eq!(bodies(&gateway, 6)?, ["0", "1", status, "0", "1", status], "{failing}");
    }
    Ok(())
}

#[test]
fn an_instance_is_replaced_before_its_memory_reaches_the_limit() -> Result<()> {
    let gateway = start(counting("(drop (memory.grow (i32.const 4)))")?, ", reuse: 100, memory: 1MiB")?;
    assert_eq!(bodies(&gateway, 6)?, ["0", "1", "0", "1", "0", "1"]);
    Ok(())
}

#[test]
fn an_instance_never_runs_two_calls_at_once() -> Result<()> {
    // Each call spins for longer than the slow tick's time slice, so that the thread switches
    // between calls and they overlap.
    let busy = state_reporter(
        "(global $busy (mut i32) (i32.const 0)) (global $i (mut i32) (i32.const 0)) (func $spin (local $i i32) (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20000000)))))",
        &["(global.get $busy)"],
        "(global.set $busy (i32.const 1)) (call $spin) (global.set $busy (i32.const 0))",
    )?;
    let gateway = start(busy, ", reuse: 1000, timeout: 400ms")?;
    let bodies_seen = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| bodies(&gateway, 10))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>>>()
    })?;
    assert!(bodies_seen.iter().flatten().all(|body| body == "0"), "{bodies_seen:?}");
    assert!(kept_instances(&gateway)? > 1, "no two calls overlapped");
    Ok(())
}

/// How many idle instances of the filter the gateway keeps.
fn kept_instances(gateway: &Gateway) -> Result<u64> {
    Ok(gateway.admin("/filters")?.json()[0]["instances_kept"].as_u64().unwrap_or(u64::MAX))
}

#[test]
fn phases_share_an_instance_and_routes_keep_their_own_configuration() -> Result<()> {
    let both = component(
        "include gateway-filter;",
        "(module
           (import \"witgate:gateway/response@0.1.0\" \"append-header\" (func $append (param i32 i32 i32 i32)))
           (memory (export \"memory\") 1) (global $n (mut i32) (i32.const 0))
           (data (i32.const 3072) \"x-calls\") (data (i32.const 3584) \"0\")
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
           (func $count (global.set $n (i32.add (global.get $n) (i32.const 1))))
           (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32) (call $count) (i32.const 0))
           (func (export \"witgate:gateway/response-handler@0.1.0#handle-response\") (result i32) (call $count)
             (i32.store8 (i32.const 3584) (i32.add (i32.const 48) (global.get $n)))
             (call $append (i32.const 3072) (i32.const 7) (i32.const 3584) (i32.const 1)) (i32.const 0)))",
    )?;
    let gateway = start(both, ", reuse: 1000")?;
    let mut client = gateway.client()?;
    for expected in ["2", "4"] {
        assert_eq!(client.get("/", &[])?.header("x-calls"), Some(expected));
    }
    let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm, reuse: 1000}}\nroutes:\n  - {match: {path: /a}, filters: [{filter: f, config: {key: a}}], upstream: echo}\n  - {match: {path: /b}, filters: [{filter: f, config: {key: b}}], upstream: echo}";
    for language in ["rust", "typescript", "python"] {
        let gateway = Setup::new(yaml)?.workers(1).with_guest("f.wasm", &format!("{language}/api-key"))?.start()?;
        let mut client = gateway.client()?;
        for round in 0..20 {
            for (path, key, status) in [("/a", "a", 200), ("/b", "a", 401), ("/b", "b", 200), ("/a", "b", 401)] {
                let response = client.get(path, &[&format!("x-api-key: {key}"), &format!("x-round: {round}")])?;
                assert_eq!(response.status, status, "{language}: {path} with {key}");
                if status == 200 {
                    let echoed = ["x-user", "x-round", "cookie"].map(|name| response.echoed(name));
                    assert_eq!(echoed, [Some("alice".into()), Some(round.to_string()), None], "{language}");
                }
            }
        }
        assert_eq!(kept_instances(&gateway)?, 1, "{language}");
    }
    Ok(())
}

#[test]
fn instances_are_dropped_with_their_version_or_when_idle() -> Result<()> {
    let mut gateway = start(counting("")?, ", reuse: 1000")?;
    assert_eq!(bodies(&gateway, 3)?, ["0", "1", "2"]);
    let filters = gateway.admin("/filters")?.json();
    assert_eq!((&filters[0]["reuse"], &filters[0]["instances_kept"]), (&json!(1000), &json!(1)));
    assert_eq!(gateway.metric("witgate_instances")?, 1.0);
    let digest: String = filters[0]["digest"].as_str().unwrap_or_default().chars().take(12).collect();
    let line = format!("witgate_filter_instances_kept{{filter=\"f\",version=\"-\",digest=\"{digest}\"}}");
    assert_eq!(gateway.metric(&line)?, 1.0);
    gateway.replace("f.wasm", counting("(nop)")?)?;
    wait_until("the old version's instance is gone", || gateway.metric("witgate_instances").is_ok_and(|n| n == 0.0));
    assert_eq!(bodies(&gateway, 2)?, ["0", "1"]);
    wait_up_to(Duration::from_secs(30), "the idle instance is gone", || {
        gateway.metric("witgate_instances").is_ok_and(|n| n == 0.0)
    });
    assert_eq!((bodies(&gateway, 1)?, kept_instances(&gateway)?), (vec!["0".to_owned()], 1));
    gateway.signal(Signal::TERM)?;
    assert!(gateway.wait(Duration::from_secs(20))?.success(), "the drain ends although an instance is kept");
    Ok(())
}

#[test]
fn check_reports_filters_with_reuse() -> Result<()> {
    let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm, reuse: 7}, g: {source: f.wasm}}\nroutes: [{upstream: echo, filters: [f, g]}]";
    let (code, text) = Setup::new(yaml)?.with("f.wasm", responder(200, None, "")?)?.check()?;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("reuse")).collect();
    assert_eq!((code, lines.len()), (Some(0), 1), "{text}");
    assert!(lines[0].starts_with("filter f: ") && lines[0].contains("7 calls"), "{text}");
    Ok(())
}
