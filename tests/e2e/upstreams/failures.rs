//! Health checks and outlier ejection: failing endpoints leave the rotation and return to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use harness::{Behavior, Client, Setup, Upstream, wait_until};
use rustix::process::Signal;

use super::{endpoint_metric, gateway_to, serving_endpoint, url, urls, yaml};

#[test]
fn an_unhealthy_endpoint_gets_no_requests_until_it_recovers() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let check =
        "outlier: off, health_check: {path: /healthz, interval: 250ms, timeout: 250ms, healthy: 2, unhealthy: 2}";
    let gateway = gateway_to(&[&a, &b], check)?;
    let healthy = |expected: f64| {
        wait_until("the health check's result", || {
            gateway.metric(&endpoint_metric("witgate_endpoint_healthy", &a)).is_ok_and(|value| value == expected)
        });
    };
    let mut client = gateway.client()?;
    for behavior in [Behavior::Status(500), Behavior::Reset, Behavior::Stall] {
        a.set_behavior(behavior);
        healthy(0.0);
        let before = a.requests();
        for _ in 0..10 {
            assert_eq!(serving_endpoint(&mut client, &[])?, b.address.to_string(), "{behavior:?}");
        }
        assert_eq!(a.requests(), before);
        a.set_behavior(Behavior::FollowPath);
        healthy(1.0);
        let endpoints: Vec<String> = (0..4).map(|_| serving_endpoint(&mut client, &[])).collect::<Result<_>>()?;
        assert!(endpoints.contains(&a.address.to_string()), "{endpoints:?}");
    }
    gateway.wait_logged("an endpoint is healthy again", 3);
    assert_eq!(
        gateway.logged("an endpoint is unhealthy").len(),
        3,
        "one line for each change of health, none for each check"
    );
    Ok(())
}

#[test]
fn all_endpoints_are_used_if_all_are_unhealthy() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = gateway_to(&[&a, &b], "health_check: {path: /status/500, interval: 250ms}")?;
    gateway.wait_logged("an endpoint is unhealthy", 2);
    let mut client = gateway.client()?;
    let mut endpoints: Vec<String> = (0..4).map(|_| serving_endpoint(&mut client, &[])).collect::<Result<_>>()?;
    endpoints.sort();
    endpoints.dedup();
    assert_eq!(endpoints.len(), 2);
    Ok(())
}

#[test]
fn an_http2_endpoint_is_checked_over_http2() -> Result<()> {
    // A second gateway is the endpoint, because it speaks HTTP/2 without TLS.
    let server = Setup::new("upstreams: {e: {builtin: echo}}\nroutes: [{upstream: e}]")?.start()?;
    let settings = "protocol: h2, outlier: off, health_check: {path: /well, interval: 250ms, unhealthy: 1}";
    let gateway = Setup::new(&yaml(&[url(server.address)], settings))?.start()?;
    let healthy = |expected: bool| {
        wait_until("the health check's result", || {
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
fn a_failing_endpoint_is_ejected_and_returns() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = gateway_to(&[&a, &b], "retries: {attempts: 0}, outlier: {failures: 3, eject: 400ms}")?;
    let mut client = gateway.client()?;
    a.set_behavior(Behavior::Status(503));
    let statuses: Vec<u16> = (0..12).map(|_| Ok(client.get("/", &[])?.status)).collect::<Result<_>>()?;
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 3, "{statuses:?}");
    assert_eq!(gateway.metric(&endpoint_metric("witgate_endpoint_ejected", &a))?, 1.0);
    assert_eq!(gateway.metric(&endpoint_metric("witgate_endpoint_ejections_total", &a))?, 1.0);
    // After its return one failure ejects it again, for twice as long.
    wait_until("the endpoint fails again", || client.get("/", &[]).is_ok_and(|response| response.status == 503));
    let again = gateway.wait_logged("an endpoint is ejected", 2);
    assert!(again[1].contains("\"seconds\":0.8"), "{}", again[1]);
    a.set_behavior(Behavior::FollowPath);
    wait_until("the endpoint serves again", || {
        serving_endpoint(&mut client, &[]).is_ok_and(|endpoint| endpoint == a.address.to_string())
    });
    gateway.wait_logged("an ejected endpoint answers again", 1);
    Ok(())
}

#[test]
fn at_most_half_of_the_endpoints_are_ejected() -> Result<()> {
    let (a, b, c) = (Upstream::start()?, Upstream::start()?, Upstream::start()?);
    let gateway = gateway_to(&[&a, &b, &c], "retries: {attempts: 0}, outlier: {failures: 1, eject: 60s}")?;
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
fn a_reload_keeps_the_state_of_endpoints() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = gateway_to(&[&a, &b], "retries: {attempts: 0}, outlier: {failures: 1, eject: 60s}")?;
    let mut client = gateway.client()?;
    a.set_behavior(Behavior::Reset);
    wait_until("the endpoint is ejected", || {
        client.get("/", &[]).is_ok_and(|response| response.status == 502)
            && gateway.metric(&endpoint_metric("witgate_endpoint_ejected", &a)).is_ok_and(|value| value == 1.0)
    });
    gateway.signal(Signal::HUP)?;
    gateway.wait_logged("the configuration is in service", 1);
    assert_eq!(gateway.metric(&endpoint_metric("witgate_endpoint_ejected", &a))?, 1.0);
    for _ in 0..6 {
        assert_eq!(serving_endpoint(&mut client, &[])?, b.address.to_string());
    }
    // The state of an endpoint that the configuration does not name is dropped.
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", text.replace(&format!("{}, ", url(a.address)), ""))?;
    gateway.signal(Signal::HUP)?;
    gateway.wait_logged("the configuration is in service", 2);
    assert!(!gateway.admin("/metrics")?.text().contains(&a.address.to_string()));
    Ok(())
}

#[test]
fn a_slow_client_does_not_count_as_an_endpoint_failure() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let settings = yaml(&urls(&[&a, &b]), "timeout: 600ms, outlier: {failures: 1, eject: 60s}");
    let gateway = Setup::new(&format!("timeouts: {{request_body: 800ms}}\n{settings}"))?.workers(1).start()?;
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        client.write(b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nabc")?;
    }
    for client in &mut clients {
        assert_eq!(client.read(false)?.status, 408);
    }
    for upstream in [&a, &b] {
        assert_eq!(gateway.metric(&endpoint_metric("witgate_endpoint_ejected", upstream))?, 0.0);
    }
    Ok(())
}

#[test]
fn a_killed_endpoint_fails_no_request() -> Result<()> {
    const CLIENTS: usize = 8;
    let (a, b, victim) = (Upstream::start()?, Upstream::start()?, Upstream::start()?);
    let address = victim.address;
    let settings =
        "outlier: {failures: 5, eject: 500ms}, health_check: {path: /healthz, interval: 100ms, timeout: 100ms}";
    let gateway = Setup::new(&yaml(&urls(&[&a, &b, &victim]), settings))?.workers(2).level("info").start()?;
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
                    let is_ok = client
                        .as_mut()
                        .is_some_and(|client| client.get("/address", &[]).is_ok_and(|response| response.status == 200));
                    sent.fetch_add(1, Ordering::Relaxed);
                    if !is_ok {
                        failed.fetch_add(1, Ordering::Relaxed);
                        client = gateway.client().ok();
                    }
                }
            });
        }
        let more = |count: usize| {
            let until = sent.load(Ordering::Relaxed) + count;
            wait_until("more requests are sent", || sent.load(Ordering::Relaxed) >= until);
        };
        more(500);
        let began = Instant::now();
        victim.kill();
        wait_until("the endpoint is out of service", out);
        let out_after = began.elapsed();
        more(1000);
        let began = Instant::now();
        let revived = Arc::new(Upstream::at(address)?);
        wait_until("the endpoint gets requests again", || revived.requests() > 0);
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
