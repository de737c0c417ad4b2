//! Several endpoints: who gets a request, what is tried again, who is left out, and when they are
//! back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{Behavior, Client, Gateway, Response, Setup, Upstream, wait_until};
use rustix::process::Signal;

/// An upstream `u` of these endpoints and terms.
fn yaml(endpoints: &[String], terms: &str) -> String {
    let list = endpoints.join(", ");
    format!(
        "upstreams: {{u: {{endpoints: [{list}], {terms}}}}}\nroutes: [{{name: all, upstream: u}}]\nreload: {{watch: false, interval: off}}\n"
    )
}

fn url(address: SocketAddr) -> String {
    format!("\"http://{address}\"")
}

fn urls(upstreams: &[&Upstream]) -> Vec<String> {
    upstreams.iter().map(|upstream| url(upstream.address)).collect()
}

/// One thread serves, so that turns and budgets are one row.
fn behind(upstreams: &[&Upstream], terms: &str) -> Result<Gateway> {
    Setup::new(&yaml(&urls(upstreams), terms))?.workers(1).start()
}

fn who(client: &mut Client, headers: &[&str]) -> Result<String> {
    Ok(client.get("/address", headers)?.text())
}

fn of(metric: &str, upstream: &Upstream) -> String {
    format!("{metric}{{upstream=\"u\",endpoint=\"{}\"}}", upstream.address)
}

/// What the client reads of the gateway's own failure.
fn reason(response: &Response) -> (u16, String) {
    let status = response.header("proxy-status").unwrap_or_default();
    let error = status.split("error=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default();
    (response.status, error.to_owned())
}

#[test]
fn requests_are_shared_by_weight() -> Result<()> {
    let (a, b, none) = (Upstream::start()?, Upstream::start()?, Upstream::start()?);
    let weighted = |upstream: &Upstream, weight: u32| format!("{{url: {}, weight: {weight}}}", url(upstream.address));
    let endpoints = [weighted(&a, 3), weighted(&b, 1), weighted(&none, 0)];
    let gateway = Setup::new(&yaml(&endpoints, ""))?.workers(1).start()?;
    let mut client = gateway.client()?;
    for _ in 0..40 {
        assert_eq!(client.get("/", &[])?.status, 200);
    }
    assert_eq!((a.requests(), b.requests(), none.requests()), (30, 10, 0));
    Ok(())
}

#[test]
fn an_upstream_of_endpoints_without_weight_is_unavailable() -> Result<()> {
    let gateway = Setup::new(&yaml(&["{url: \"http://127.0.0.1:1\", weight: 0}".into()], ""))?.start()?;
    let response = gateway.get("/", &[])?;
    assert_eq!(reason(&response), (503, "destination_unavailable".into()));
    assert_eq!(response.header("retry-after"), Some("1"));
    Ok(())
}

#[test]
fn the_less_busy_endpoint_gets_the_next_request() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = behind(&[&a, &b], "balance: least_requests")?;
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/1500", &[], b"")?;
    wait_until("one of them is busy", || a.requests() + b.requests() == 1);
    let free = if a.requests() == 0 { &a } else { &b };
    let mut client = gateway.client()?;
    for _ in 0..20 {
        assert_eq!(who(&mut client, &[])?, free.address.to_string());
    }
    assert_eq!(slow.read(false)?.text(), "late");
    Ok(())
}

#[test]
fn a_key_stays_with_its_endpoint_and_moves_only_if_that_goes() -> Result<()> {
    let all = [Upstream::start()?, Upstream::start()?, Upstream::start()?];
    let terms = "balance: {hash: {header: X-User}}";
    let gateway = Setup::new(&yaml(&urls(&[&all[0], &all[1], &all[2]]), terms))?.workers(2).start()?;
    let users: Vec<String> = (0..60).map(|user| format!("x-user: {user}")).collect();
    let places = || -> Result<Vec<String>> { users.iter().map(|user| who(&mut gateway.client()?, &[user])).collect() };
    let before = places()?;
    assert_eq!(places()?, before, "whatever thread takes the connection");
    let mut counts = BTreeMap::new();
    before.iter().for_each(|place| *counts.entry(place).or_insert(0) += 1);
    assert!(counts.len() == 3 && counts.values().all(|count| *count >= 8), "{counts:?}");

    let gone = all[1].address.to_string();
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", text.replace(&format!(", {}", url(all[1].address)), ""))?;
    gateway.signal(Signal::HUP)?;
    gateway.wait_logged("the configuration is in service", 1);
    for (before, after) in before.iter().zip(places()?) {
        assert!(if *before == gone { after != gone } else { *before == after }, "{before} → {after}");
    }
    Ok(())
}

#[test]
fn a_cookie_the_path_or_the_client_can_be_the_key() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    for (key, headers) in [("{cookie: id}", "cookie: x=1; id=7"), ("path", "x-a: 1"), ("client_ip", "x-a: 1")] {
        let gateway = behind(&[&a, &b], &format!("balance: {{hash: {key}}}"))?;
        let mut client = gateway.client()?;
        let first = who(&mut client, &[headers])?;
        for _ in 0..10 {
            assert_eq!(who(&mut client, &[headers])?, first, "{key}");
        }
    }
    Ok(())
}

#[test]
fn an_unhealthy_endpoint_gets_nothing_until_it_is_well_again() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let check =
        "outlier: off, health_check: {path: /healthz, interval: 250ms, timeout: 250ms, healthy: 2, unhealthy: 2}";
    let gateway = behind(&[&a, &b], check)?;
    let healthy = |expected: f64| {
        wait_until("the check's verdict", || {
            gateway.metric(&of("witgate_endpoint_healthy", &a)).is_ok_and(|value| value == expected)
        });
    };
    let mut client = gateway.client()?;
    for mood in [Behavior::Status(500), Behavior::Reset, Behavior::Stall] {
        a.set_behavior(mood);
        healthy(0.0);
        let before = a.requests();
        for _ in 0..10 {
            assert_eq!(who(&mut client, &[])?, b.address.to_string(), "{mood:?}");
        }
        assert_eq!(a.requests(), before);
        a.set_behavior(Behavior::FollowPath);
        healthy(1.0);
        let places: Vec<String> = (0..4).map(|_| who(&mut client, &[])).collect::<Result<_>>()?;
        assert!(places.contains(&a.address.to_string()), "{places:?}");
    }
    gateway.wait_logged("an endpoint is healthy again", 3);
    assert_eq!(gateway.logged("an endpoint is unhealthy").len(), 3, "a line for each change, none for each check");
    Ok(())
}

#[test]
fn where_all_are_unhealthy_all_are_asked() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = behind(&[&a, &b], "health_check: {path: /status/500, interval: 250ms}")?;
    gateway.wait_logged("an endpoint is unhealthy", 2);
    let mut client = gateway.client()?;
    let mut places: Vec<String> = (0..4).map(|_| who(&mut client, &[])).collect::<Result<_>>()?;
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 2);
    Ok(())
}

#[test]
fn an_endpoint_that_fails_is_left_out_and_comes_back() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = behind(&[&a, &b], "retries: {attempts: 0}, outlier: {failures: 3, eject: 400ms}")?;
    let mut client = gateway.client()?;
    a.set_behavior(Behavior::Status(503));
    let statuses: Vec<u16> = (0..12).map(|_| Ok(client.get("/", &[])?.status)).collect::<Result<_>>()?;
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 3, "{statuses:?}");
    assert_eq!(gateway.metric(&of("witgate_endpoint_ejected", &a))?, 1.0);
    assert_eq!(gateway.metric(&of("witgate_endpoint_ejections_total", &a))?, 1.0);
    // Back in service it fails once and is out for twice as long.
    wait_until("the next failure", || client.get("/", &[]).is_ok_and(|response| response.status == 503));
    let again = gateway.wait_logged("an endpoint is ejected", 2);
    assert!(again[1].contains("\"seconds\":0.8"), "{}", again[1]);
    a.set_behavior(Behavior::FollowPath);
    wait_until("it is back", || who(&mut client, &[]).is_ok_and(|place| place == a.address.to_string()));
    gateway.wait_logged("an ejected endpoint answers again", 1);
    Ok(())
}

#[test]
fn half_of_the_endpoints_stay() -> Result<()> {
    let (a, b, c) = (Upstream::start()?, Upstream::start()?, Upstream::start()?);
    let gateway = behind(&[&a, &b, &c], "retries: {attempts: 0}, outlier: {failures: 1, eject: 60s}")?;
    let mut client = gateway.client()?;
    [&a, &b, &c].iter().for_each(|one| one.set_behavior(Behavior::Status(502)));
    for _ in 0..9 {
        assert_eq!(client.get("/", &[])?.status, 502);
    }
    let ejected = gateway.admin("/upstreams")?.json()[0]["endpoints"].as_array().cloned().unwrap_or_default();
    assert_eq!(ejected.iter().filter(|one| !one["ejected_for_seconds"].is_null()).count(), 1, "{ejected:?}");
    Ok(())
}

#[test]
fn what_was_not_sent_goes_to_another_endpoint_whatever_it_is() -> Result<()> {
    let good = Upstream::start()?;
    let endpoints = [url(harness::refusing_address()?), url(good.address)];
    let gateway = Setup::new(&yaml(&endpoints, "outlier: off"))?.workers(1).start()?;
    let mut client = gateway.client()?;
    for _ in 0..10 {
        assert_eq!(client.get("/", &[])?.status, 200);
        // A body that streams can go once: it still can, since nothing was sent.
        assert_eq!(client.send("POST", "/length", &[], &[b'x'; 300_000])?.text(), "300000");
    }
    assert_eq!(good.requests(), 20);
    assert_eq!(gateway.metric("witgate_upstream_retries_total{upstream=\"u\",result=\"ok\"}")?, 10.0);
    Ok(())
}

#[test]
fn what_was_sent_is_sent_again_only_if_it_may_be() -> Result<()> {
    let (bad, good) = (Upstream::start()?, Upstream::start()?);
    bad.set_behavior(Behavior::Reset);
    let gateway = behind(&[&bad, &good], "outlier: off")?;
    let mut client = gateway.client()?;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        for _ in 0..4 {
            assert_eq!(client.send(method, "/", &[], b"")?.status, 200, "{method}");
        }
    }
    assert_eq!(bad.requests(), 8);
    let mut failed = 0;
    for _ in 0..10 {
        let before = bad.requests() + good.requests();
        let response = client.send("POST", "/", &[], b"abc")?;
        assert_eq!(bad.requests() + good.requests(), before + 1, "a POST is sent once");
        if response.status != 200 {
            assert_eq!(reason(&response), (502, "connection_terminated".into()));
            failed += 1;
        }
    }
    assert_eq!(failed, 5);
    Ok(())
}

#[test]
fn a_status_is_tried_again_where_the_configuration_says_so() -> Result<()> {
    let (bad, good) = (Upstream::start()?, Upstream::start()?);
    bad.set_behavior(Behavior::Status(503));
    for (terms, expected) in [("retries: {on: [503]}", 0), ("retries: {on: [connect, 502]}", 5)] {
        let gateway = behind(&[&bad, &good], &format!("outlier: off, {terms}"))?;
        let mut client = gateway.client()?;
        let gets: Vec<u16> = (0..10).map(|_| Ok(client.get("/", &[])?.status)).collect::<Result<_>>()?;
        assert_eq!(gets.iter().filter(|status| **status == 503).count(), expected, "{terms}");
        let posts: Vec<u16> =
            (0..10).map(|_| Ok(client.send("POST", "/", &[], b"a")?.status)).collect::<Result<_>>()?;
        assert_eq!(posts.iter().filter(|status| **status == 503).count(), 5, "{terms}");
    }
    Ok(())
}

#[test]
fn a_try_has_its_own_time() -> Result<()> {
    let (bad, good) = (Upstream::start()?, Upstream::start()?);
    bad.set_behavior(Behavior::Stall);
    let terms = "timeout: 10s, outlier: off, retries: {per_try_timeout: 100ms, on: [timeout]}";
    let gateway = behind(&[&bad, &good], terms)?;
    let mut client = gateway.client()?;
    for _ in 0..6 {
        assert_eq!(client.get("/", &[])?.status, 200);
    }
    assert_eq!((bad.requests(), good.requests()), (3, 6));
    let (response, began) = (client.send("POST", "/delay/400", &[], b"a")?, Instant::now());
    assert_eq!(reason(&response), (504, "http_response_timeout".into()));
    assert!(began.elapsed() < Duration::from_secs(5), "the try's time is over long before the exchange's");
    Ok(())
}

#[test]
fn retries_end_where_the_budget_does() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    [&a, &b].iter().for_each(|one| one.set_behavior(Behavior::Reset));
    let gateway = behind(&[&a, &b], "outlier: off, retries: {budget_percent: 10}")?;
    for _ in 0..30 {
        let response = gateway.get("/", &[])?;
        assert_eq!(reason(&response), (502, "connection_terminated".into()));
    }
    // Ten are always granted; a tenth of 30 is less.
    assert_eq!(a.requests() + b.requests(), 40);
    assert_eq!(gateway.metric("witgate_upstream_retries_total{upstream=\"u\",result=\"failed\"}")?, 10.0);
    assert_eq!(gateway.metric("witgate_upstream_retries_total{upstream=\"u\",result=\"over_budget\"}")?, 20.0);
    Ok(())
}

#[test]
fn more_than_an_endpoint_takes_is_refused_at_once() -> Result<()> {
    for limits in ["{in_flight: 1}", "{connections: 1, pending: 0}"] {
        let upstream = Upstream::start()?;
        let gateway = behind(&[&upstream], &format!("retries: {{attempts: 0}}, limits: {limits}"))?;
        let mut slow = gateway.client()?;
        slow.begin("GET", "/delay/700", &[], b"")?;
        wait_until("the first is in flight", || upstream.requests() == 1);
        let response = gateway.get("/", &[])?;
        assert_eq!(reason(&response), (503, "connection_limit_reached".into()), "{limits}");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(slow.read(false)?.text(), "late");
        wait_until("there is room again", || gateway.get("/", &[]).is_ok_and(|response| response.status == 200));
    }
    Ok(())
}

#[test]
fn an_endpoint_that_is_full_leaves_requests_to_the_others() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = behind(&[&a, &b], "limits: {in_flight: 1}")?;
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/700", &[], b"")?;
    wait_until("the first is in flight", || a.requests() + b.requests() == 1);
    let mut client = gateway.client()?;
    for _ in 0..10 {
        assert_eq!(client.get("/", &[])?.status, 200);
    }
    assert_eq!(slow.read(false)?.text(), "late");
    assert_eq!(a.requests().min(b.requests()), 1);
    Ok(())
}

#[test]
fn requests_wait_their_turn_for_a_connection() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway =
        Setup::new(&yaml(&urls(&[&upstream]), "connect_timeout: 10s, limits: {connections: 2, pending: 20}"))?
            .workers(2)
            .start()?;
    let mut clients: Vec<Client> = (0..12).map(|_| gateway.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        client.begin("GET", "/delay/50", &[], b"")?;
    }
    let most = of("witgate_endpoint_connections", &upstream);
    assert!(gateway.metric(&most)? <= 2.0);
    for client in &mut clients {
        assert_eq!(client.read(false)?.text(), "late");
    }
    wait_until("nobody waits", || gateway.metric(&of("witgate_endpoint_pending", &upstream)).is_ok_and(|n| n == 0.0));
    Ok(())
}

#[test]
fn names_are_resolved() -> Result<()> {
    let upstream = Upstream::start()?;
    let endpoint = format!("\"http://localhost:{}\"", upstream.address.port());
    let gateway = Setup::new(&yaml(&[endpoint], ""))?.start()?;
    assert_eq!(gateway.get("/", &[])?.text(), "ok");
    let nowhere = Setup::new(&yaml(&["\"http://nowhere.invalid\"".into()], ""))?.start()?;
    assert_eq!(reason(&nowhere.get("/", &[])?), (502, "dns_error".into()));
    nowhere.wait_logged("nowhere.invalid", 1);
    Ok(())
}

#[test]
fn a_reload_keeps_what_is_known_of_the_endpoints() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = behind(&[&a, &b], "retries: {attempts: 0}, outlier: {failures: 1, eject: 60s}")?;
    let mut client = gateway.client()?;
    a.set_behavior(Behavior::Reset);
    wait_until("it is ejected", || {
        client.get("/", &[]).is_ok_and(|response| response.status == 502)
            && gateway.metric(&of("witgate_endpoint_ejected", &a)).is_ok_and(|value| value == 1.0)
    });
    gateway.signal(Signal::HUP)?;
    gateway.wait_logged("the configuration is in service", 1);
    assert_eq!(gateway.metric(&of("witgate_endpoint_ejected", &a))?, 1.0);
    for _ in 0..6 {
        assert_eq!(who(&mut client, &[])?, b.address.to_string());
    }
    // What the configuration no longer names is forgotten.
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", text.replace(&format!("{}, ", url(a.address)), ""))?;
    gateway.signal(Signal::HUP)?;
    gateway.wait_logged("the configuration is in service", 2);
    assert!(!gateway.admin("/metrics")?.text().contains(&a.address.to_string()));
    Ok(())
}

#[test]
fn a_body_that_stops_or_drips_too_long_is_broken_off() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = behind(&[&upstream], "timeout: 600ms, total_timeout: 1500ms, body_idle_timeout: 300ms")?;
    let began = Instant::now();
    assert!(gateway.get("/halt", &[]).is_err(), "a body that was cut never ends cleanly");
    gateway.wait_logged("it was silent for 300ms", 1);
    assert_eq!(gateway.get("/drip/20", &[])?.body.len(), 20, "slow is not silent");
    assert!(gateway.get("/drip/100000", &[]).is_err());
    gateway.wait_logged("not over within total_timeout", 1);
    assert!(began.elapsed() < Duration::from_secs(15));
    wait_until("its connections are closed", || {
        gateway.metric(&of("witgate_endpoint_connections", &upstream)).is_ok_and(|count| count <= 1.0)
    });
    Ok(())
}

#[test]
fn a_client_that_sends_slowly_is_not_the_endpoints_failure() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let terms = yaml(&urls(&[&a, &b]), "timeout: 600ms, outlier: {failures: 1, eject: 60s}");
    let gateway = Setup::new(&format!("timeouts: {{request_body: 800ms}}\n{terms}"))?.workers(1).start()?;
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        client.write(b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nabc")?;
    }
    for client in &mut clients {
        assert_eq!(client.read(false)?.status, 408);
    }
    for upstream in [&a, &b] {
        assert_eq!(gateway.metric(&of("witgate_endpoint_ejected", upstream))?, 0.0);
    }
    Ok(())
}

#[test]
fn an_http2_endpoint_is_checked_in_http2() -> Result<()> {
    // A gateway speaks HTTP/2 without TLS, too.
    let server = Setup::new("upstreams: {e: {builtin: echo}}\nroutes: [{upstream: e}]")?.start()?;
    let terms = "protocol: h2, outlier: off, health_check: {path: /well, interval: 250ms, unhealthy: 1}";
    let gateway = Setup::new(&yaml(&[url(server.address)], terms))?.start()?;
    let healthy = |expected: bool| {
        wait_until("the check's verdict", || {
            gateway.admin("/upstreams").is_ok_and(|list| list.json()[0]["endpoints"][0]["healthy"] == expected)
        });
    };
    healthy(true);
    assert_eq!(gateway.get("/", &[])?.status, 200);
    drop(server);
    healthy(false);
    Ok(())
}

#[test]
fn one_of_three_endpoints_dies_and_nobody_notices() -> Result<()> {
    const CLIENTS: usize = 8;
    let (a, b, victim) = (Upstream::start()?, Upstream::start()?, Upstream::start()?);
    let address = victim.address;
    let terms = "outlier: {failures: 5, eject: 500ms}, health_check: {path: /healthz, interval: 100ms, timeout: 100ms}";
    let gateway = Setup::new(&yaml(&urls(&[&a, &b, &victim]), terms))?.workers(2).level("info").start()?;
    let (stop, sent, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let out = || {
        let at = |metric: &str| gateway.metric(&format!("{metric}{{upstream=\"u\",endpoint=\"{address}\"}}"));
        at("witgate_endpoint_healthy").is_ok_and(|value| value == 0.0)
            || at("witgate_endpoint_ejected").is_ok_and(|value| value == 1.0)
    };
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = gateway.client().ok();
                while !stop.load(Ordering::Relaxed) {
                    let good = client
                        .as_mut()
                        .is_some_and(|client| client.get("/address", &[]).is_ok_and(|answer| answer.status == 200));
                    sent.fetch_add(1, Ordering::Relaxed);
                    if !good {
                        failed.fetch_add(1, Ordering::Relaxed);
                        client = gateway.client().ok();
                    }
                }
            });
        }
        let more = |count: usize| {
            let until = sent.load(Ordering::Relaxed) + count;
            wait_until("more requests", || sent.load(Ordering::Relaxed) >= until);
        };
        more(500);
        let began = Instant::now();
        victim.kill();
        wait_until("it is out", out);
        let out_after = began.elapsed();
        more(1000);
        let began = Instant::now();
        let revived = Arc::new(Upstream::at(address)?);
        wait_until("it gets requests again", || revived.requests() > 0);
        let back_after = began.elapsed();
        more(500);
        stop.store(true, Ordering::Relaxed);
        println!(
            "one of three endpoints killed and revived: {} requests, {} failed, out after {out_after:?}, back after {back_after:?}",
            sent.load(Ordering::Relaxed),
            failed.load(Ordering::Relaxed)
        );
        Ok(())
    })?;
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    Ok(())
}
