//! `upstreams.NAME.component`: a component of the world wasi:http/proxy answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::file_server::{Answer, FileServer};
use harness::registry::digest;
use harness::{Client, Gateway, Setup, Upstream, http_component, wait_until};

fn setup(component_keys: &str, upstream_keys: &str, route_keys: &str) -> Result<Setup> {
    let yaml = format!(
        "upstreams: {{app: {{component: {{source: app.wasm{component_keys}}}{upstream_keys}}}}}\n\
         routes: [{{name: app, upstream: app{route_keys}}}]"
    );
    Setup::new(&yaml)?.with_http_component("app.wasm", "probe")
}

fn probe() -> Result<Gateway> {
    setup("", "", "")?.start()
}

#[test]
fn handlers_of_the_toolchains_run_unchanged() -> Result<()> {
    let mut handlers = vec![("hello", "Hello, WASI!"), ("hello-python", "Hello from Python!")];
    // Its tools are large, so CI does not build it (`tests/fixtures/http/build javascript`).
    if http_component("hello-javascript").is_ok() {
        handlers.push(("hello-javascript", "Hello from Javascript!\n"));
    }
    for (name, expected) in handlers {
        let yaml = "upstreams: {app: {component: {source: app.wasm}}}\nroutes: [{upstream: app}]";
        let gateway = Setup::new(yaml)?.with_http_component("app.wasm", name)?.start()?;
        let mut client = gateway.client()?;
        for _ in 0..3 {
            let response = client.get("/", &[])?;
            assert_eq!((response.status, response.text().as_str()), (200, expected), "{name}");
        }
    }
    Ok(())
}

#[test]
fn the_component_gets_the_request_and_each_request_a_fresh_instance() -> Result<()> {
    let gateway = setup(", env: {MODE: strict, LIMIT: 5}", "", "")?.start()?;
    let mut client = gateway.client()?;
    let about = client.send("PUT", "/about?q=1", &["x-a: b", "x-forwarded-proto: https"], b"body")?.text();
    assert_eq!(about, "Method::Put Some(Scheme::Http) test q=1 b");
    assert_eq!(client.get("/env", &[])?.text(), r#"[("LIMIT", "5"), ("MODE", "strict")]"#);
    for _ in 0..3 {
        assert_eq!(client.get("/count", &[])?.text(), "0", "nothing of a request may reach the next one");
    }
    assert_eq!(client.get("/status?204", &[])?.status, 204);
    assert_eq!(client.send("HEAD", "/length?5", &[], b"")?.header("content-length"), Some("5"));
    assert_eq!(client.get("/length?5", &[])?.text(), "12345");
    let upstreams = gateway.admin("/upstreams")?.json();
    assert_eq!(upstreams[0]["component"]["in_flight"], 0);
    assert!(upstreams[0]["component"]["digest"].as_str().is_some_and(|digest| digest.len() == 64));
    Ok(())
}

#[test]
fn bodies_stream_in_both_directions_at_once() -> Result<()> {
    let gateway = probe()?;
    let mut client = gateway.client()?;
    client.write(b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")?;
    client.write(b"3\r\nabc\r\n")?;
    assert_eq!(client.read_head()?.header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.read_chunk()?.as_deref(), Some(&b"abc"[..]));
    client.write(b"2\r\nde\r\n")?;
    assert_eq!(client.read_chunk()?.as_deref(), Some(&b"de"[..]));
    client.write(b"0\r\n\r\n")?;
    assert_eq!(client.read_chunk()?, None);
    let large = vec![b'y'; 64 << 10];
    assert!(client.send("POST", "/echo", &[], &large)?.body == large);
    assert_eq!(client.get("/bytes?1000000", &[])?.body.len(), 1_000_000);
    assert_eq!(client.get("/drip?3", &[])?.text(), "xxx");
    Ok(())
}

#[test]
fn a_body_above_the_routes_limit_gets_413() -> Result<()> {
    let gateway = setup("", "", ", limits: {request_body_bytes: 100}")?.start()?;
    assert_eq!(gateway.client()?.send("POST", "/echo", &[], &[b'x'; 101])?.status, 413);
    assert_eq!(gateway.client()?.send("POST", "/echo", &[], &[b'x'; 100])?.body.len(), 100);
    Ok(())
}

#[test]
fn a_component_that_fails_harms_one_exchange_and_never_ends_a_body_cleanly() -> Result<()> {
    let gateway = setup(", memory: 8MiB", ", timeout: 1s, total_timeout: 2s", "")?.start()?;
    for (path, status, kind) in [
        ("/trap", 502, "upstream-closed"),
        ("/nothing", 502, "upstream-protocol"),
        ("/error", 502, "upstream-protocol"),
        ("/status?101", 502, "upstream-protocol"),
        ("/status?600", 502, "upstream-protocol"),
        ("/memory", 502, "upstream-closed"),
        ("/spin", 504, "upstream-timeout"),
        ("/sleep?60000", 504, "upstream-timeout"),
        ("/headers?80", 502, "upstream-protocol"),
        ("/length?9", 502, "upstream-closed"),
    ] {
        let mut client = gateway.client()?;
        client.begin("GET", path, &[], b"")?;
        // An error of the body may come before or after the head was sent.
        match client.read(false) {
            Ok(response) => {
                assert_eq!(response.status, status, "{path}");
                let details = response.header("proxy-status").unwrap_or_default();
                assert!(details.contains(kind), "{path}: {details}");
            }
            Err(_) => assert_eq!(path, "/length?9"),
        }
        assert_eq!(gateway.get("/status?200", &[])?.status, 200, "after {path}");
    }
    for path in ["/unfinished", "/leaked", "/trap-later", "/spin-later", "/length?3"] {
        let mut client = gateway.client()?;
        client.begin("GET", path, &[], b"")?;
        let response = client.read(false);
        let is_broken = response.as_ref().map_or(true, |response| response.status == 502);
        assert!(is_broken, "{path}: {response:?}");
    }
    let logged = gateway.wait_logged("in the middle of the body", 1).join("");
    assert!(logged.contains("\"upstream\":\"app\""), "{logged}");
    Ok(())
}

#[test]
fn requests_of_a_component_are_refused() -> Result<()> {
    let target = Upstream::start()?;
    let gateway = probe()?;
    let response = gateway.get(&format!("/fetch?{}", target.address), &[])?;
    assert_eq!((response.status, response.text().as_str()), (200, "ErrorCode::HttpRequestDenied"));
    assert_eq!(target.connections(), 0);
    Ok(())
}

#[test]
fn a_component_calls_the_origins_that_are_granted() -> Result<()> {
    let target = Upstream::start()?;
    let yaml = format!(
        "upstreams:\n  svc: {{endpoints: [\"http://{}\"]}}\n  app:\n    component:\n      source: app.wasm\n\
         \x20     http: {{origins: {{\"http://svc\": {{upstream: svc}}}}}}\nroutes: [{{upstream: app}}]",
        target.address
    );
    let gateway = Setup::new(&yaml)?.with_http_component("app.wasm", "probe")?.start()?;
    assert_eq!(gateway.get("/fetch?svc", &[])?.text(), "200");
    let refused = gateway.get(&format!("/fetch?{}", target.address), &[])?;
    assert_eq!(refused.text(), "ErrorCode::HttpRequestDenied");
    assert_eq!(target.requests(), 1);
    Ok(())
}

/// A gateway whose component may call the upstream `svc` at this address.
fn calling(address: std::net::SocketAddr, top: &str, http: &str) -> Result<Setup> {
    let yaml = format!(
        "{top}\nupstreams:\n  svc: {{endpoints: [\"http://{address}\"], timeout: 5s}}\n  app:\n    timeout: 8s\n\
         \x20   component:\n      source: app.wasm\n      http: {{origins: {{\"http://svc\": {{upstream: svc}}}}{http}}}\n\
         routes: [{{upstream: app}}]"
    );
    Setup::new(&yaml)?.with_http_component("app.wasm", "probe")
}

#[test]
fn a_loop_of_a_component_ends_and_a_client_cannot_feign_one() -> Result<()> {
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let gateway = calling(address, "", ", wait: 5s")?.at(address).start()?;
    let feigned = ["via: 1.1 witgate (call), 1.1 witgate (call), 1.1 witgate (call)"];
    assert_eq!(gateway.get("/fetch?svc/count", &feigned)?.text(), "200");
    let deep = "/fetch?svc".repeat(5);
    assert_eq!(gateway.get(&deep, &[])?.status, 200);
    let requests = gateway.metric("witgate_requests_total{route=\"route-1\",method=\"GET\",status=\"200\"}")?;
    assert_eq!(requests, 2.0 + 4.0, "the fourth call in sequence is refused");
    Ok(())
}

#[test]
fn bodies_of_a_components_requests_count_as_held_bytes() -> Result<()> {
    let target = Upstream::start()?;
    let limits = "limits: {buffered_bytes: 1MiB, buffered_bytes_per_client: 1MiB}";
    let gateway = calling(target.address, limits, ", request_bytes: 4MiB, response_bytes: 4MiB")?.start()?;
    assert_eq!(gateway.get("/post?500000,svc/length", &[])?.text(), "200");
    let above = gateway.get("/post?2000000,svc/length", &[])?.text();
    assert!(above.contains("limits.buffered_bytes"), "{above}");
    assert_eq!(gateway.get("/fetch?svc/bytes/500000", &[])?.text(), "200");
    let above = gateway.get("/fetch?svc/bytes/2000000", &[])?.text();
    assert!(above.contains("limits.buffered_bytes"), "{above}");
    wait_until("the bytes are returned", || gateway.metric("witgate_buffered_bytes").is_ok_and(|bytes| bytes == 0.0));
    Ok(())
}

#[test]
fn the_waits_of_a_component_have_one_bound() -> Result<()> {
    let target = Upstream::start()?;
    let gateway = calling(target.address, "", ", wait: 1500ms")?.start()?;
    assert_eq!(gateway.get("/repeat?2,svc/delay/10", &[])?.text(), "200 200");
    let late = gateway.get("/repeat?4,svc/delay/1000", &[])?.text();
    assert_eq!(late.replace("ErrorCode::", ""), "200 HttpResponseTimeout HttpResponseTimeout HttpResponseTimeout");
    assert_eq!(target.requests(), 4, "without time left nothing is sent");
    Ok(())
}

#[test]
fn output_is_bounded_and_escaped_and_concurrency_has_a_limit() -> Result<()> {
    let gateway = setup(", concurrency: 1", "", "")?.start()?;
    assert_eq!(gateway.get("/print?1000", &[])?.text(), "printed");
    let lines = gateway.wait_logged("line 63", 1);
    assert!(!lines[0].contains('\u{1b}'), "{lines:?}");
    assert!(gateway.logged("line 64").is_empty());
    let mut slow = gateway.client()?;
    slow.begin("GET", "/drip?100", &[], b"")?;
    slow.read_head()?;
    assert_eq!(gateway.get("/count", &[])?.status, 503);
    drop(slow);
    wait_until("a client that is gone ends its call", || {
        gateway.get("/count", &[]).is_ok_and(|response| response.status == 200)
    });
    Ok(())
}

#[test]
fn a_loop_does_not_hold_up_others() -> Result<()> {
    let gateway = setup("", ", timeout: 3s", "")?.workers(1).start()?;
    let mut looping = gateway.client()?;
    looping.begin("GET", "/spin", &[], b"")?;
    for _ in 0..20 {
        assert_eq!(gateway.get("/count", &[])?.status, 200);
    }
    assert_eq!(looping.read(false)?.status, 504);
    Ok(())
}

#[test]
fn a_new_component_replaces_the_old_one_under_load_without_a_failure() -> Result<()> {
    let yaml = "upstreams: {app: {component: {source: app.wasm}}}\nroutes: [{upstream: app}]";
    let gateway = Setup::new(yaml)?.with_http_component("app.wasm", "hello")?.start()?;
    let (address, is_over) = (gateway.address, AtomicBool::new(false));
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<(usize, usize)> {
                    let (mut client, mut old, mut new) = (Client::connect(address)?, 0, 0);
                    while !is_over.load(Ordering::Relaxed) {
                        match client.get("/count", &[])?.text().as_str() {
                            "Hello, WASI!" => old += 1,
                            "0" => new += 1,
                            other => anyhow::bail!("{other}"),
                        }
                    }
                    Ok((old, new))
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        gateway.replace("app.wasm", http_component("probe")?)?;
        wait_until("the new component serves", || {
            gateway.get("/count", &[]).is_ok_and(|response| response.text() == "0")
        });
        // A file that is no component changes nothing.
        gateway.replace("app.wasm", "not wasm")?;
        gateway.wait_logged("the new component was refused", 1);
        assert_eq!(gateway.get("/count", &[])?.text(), "0");
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            let (old, new) = client.join().unwrap()?;
            assert!(old > 0 && new > 0, "{old} {new}");
        }
        Ok(())
    })
}

#[test]
fn check_names_what_is_wrong_with_a_component() -> Result<()> {
    let filter = harness::wat::header_setter("x-a", "1", "")?;
    let yaml = "upstreams:\n  a: {component: {source: filter.wasm}}\n  b: {component: {source: app.wasm}, retries: {attempts: 2}}\n\
                routes: [{upstream: a}, {match: {path: /b}, upstream: b}]";
    let setup = Setup::new(yaml)?.with("filter.wasm", filter)?.with_http_component("app.wasm", "hello")?;
    let (_, text) = setup.check()?;
    assert!(text.contains("upstreams.b.retries: has no effect on an upstream with `component`"), "{text}");
    let yaml = "upstreams: {a: {component: {source: filter.wasm}}, b: {component: {source: app.wasm}}}\n\
                filters: {f: {source: app.wasm}}\nroutes: [{upstream: a}, {match: {path: /b}, upstream: b, filters: [f]}]";
    let filter = harness::wat::header_setter("x-a", "1", "")?;
    let setup = Setup::new(yaml)?.with("filter.wasm", filter)?.with_http_component("app.wasm", "hello")?;
    let (code, text) = setup.check()?;
    assert_eq!(code, Some(1));
    assert!(
        text.contains("upstreams.a.component") && text.contains("does not export wasi:http/incoming-handler"),
        "{text}"
    );
    assert!(text.contains("filters.f") && text.contains("but a filter exports"), "{text}");
    assert!(text.contains("upstream b: component"), "{text}");
    Ok(())
}

#[test]
fn a_component_comes_from_a_server_pinned_and_with_its_last_good_version() -> Result<()> {
    let server = FileServer::start()?;
    let (one, two) = (http_component("hello")?, http_component("probe")?);
    server.put("/app.wasm", one.clone());
    let pin = digest(&one).trim_start_matches("sha256:").to_owned();
    let yaml = |keys: &str| {
        format!(
            "upstreams: {{app: {{component: {{source: \"{}\"{keys}}}}}}}\nsources: [{{prefix: \"{}\", plain_http: true, poll: 1s}}]\nroutes: [{{upstream: app}}]",
            server.url("/app.wasm"),
            server.url("/")
        )
    };
    let (code, text) = Setup::new(&yaml(&format!(", sha256: {}", "0".repeat(64))))?.check()?;
    assert_eq!((code, text.contains("but the configuration pins")), (Some(1), true), "{text}");
    let mut gateway = Setup::new(&yaml(""))?.start()?;
    let hello = |gateway: &Gateway| gateway.get("/", &[]).is_ok_and(|response| response.text() == "Hello, WASI!");
    assert!(hello(&gateway));
    let source = gateway.admin("/upstreams")?.json()[0]["component"]["source"].clone();
    assert_eq!(source["sha256"], pin, "{source}");

    // A version that is refused, then no server: the one before serves, also after a restart.
    server.put("/app.wasm", b"hello".to_vec());
    let line = gateway.wait_logged("was refused", 1).pop().unwrap_or_default();
    ensure!(line.contains("not-wasm"), "{line}");
    assert!(hello(&gateway));
    server.set("/app.wasm", Answer::Status(500));
    gateway.restart()?;
    assert!(hello(&gateway));
    server.put("/app.wasm", two);
    wait_until("the new version serves", || {
        gateway.get("/status?204", &[]).is_ok_and(|response| response.status == 204)
    });

    Ok(())
}
