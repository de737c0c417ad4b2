//! Retries: which requests are sent again, how often, and for how long.

use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{Behavior, Setup, Upstream};

use super::{gateway_error, gateway_to, url, yaml};

#[test]
fn an_unsent_request_goes_to_another_endpoint_whatever_its_method() -> Result<()> {
    let healthy = Upstream::start()?;
    let endpoints = [url(harness::refusing_address()?), url(healthy.address)];
    let gateway = Setup::new(&yaml(&endpoints, "outlier: off"))?.workers(1).start()?;
    let mut client = gateway.client()?;
    for _ in 0..10 {
        assert_eq!(client.get("/", &[])?.status, 200);
        // A streamed body can be sent only once. It still can, because nothing was sent yet.
        assert_eq!(client.send("POST", "/length", &[], &[b'x'; 300_000])?.text(), "300000");
    }
    assert_eq!(healthy.requests(), 20);
    assert_eq!(gateway.metric("witgate_upstream_retries_total{upstream=\"u\",result=\"ok\"}")?, 10.0);
    Ok(())
}

#[test]
fn a_sent_request_is_retried_only_if_it_is_idempotent() -> Result<()> {
    let (failing, healthy) = (Upstream::start()?, Upstream::start()?);
    failing.set_behavior(Behavior::Reset);
    let gateway = gateway_to(&[&failing, &healthy], "outlier: off")?;
    let mut client = gateway.client()?;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        for _ in 0..4 {
            assert_eq!(client.send(method, "/", &[], b"")?.status, 200, "{method}");
        }
    }
    assert_eq!(failing.requests(), 8);
    let mut failed = 0;
    for _ in 0..10 {
        let before = failing.requests() + healthy.requests();
        let response = client.send("POST", "/", &[], b"abc")?;
        assert_eq!(failing.requests() + healthy.requests(), before + 1, "a POST must be sent once");
        if response.status != 200 {
            assert_eq!(gateway_error(&response), (502, "connection_terminated".into()));
            failed += 1;
        }
    }
    assert_eq!(failed, 5);
    Ok(())
}

#[test]
fn a_status_is_retried_if_configured() -> Result<()> {
    let (failing, healthy) = (Upstream::start()?, Upstream::start()?);
    failing.set_behavior(Behavior::Status(503));
    for (settings, expected) in [("retries: {on: [503]}", 0), ("retries: {on: [connect, 502]}", 5)] {
        let gateway = gateway_to(&[&failing, &healthy], &format!("outlier: off, {settings}"))?;
        let mut client = gateway.client()?;
        let gets: Vec<u16> = (0..10).map(|_| Ok(client.get("/", &[])?.status)).collect::<Result<_>>()?;
        assert_eq!(gets.iter().filter(|status| **status == 503).count(), expected, "{settings}");
        let posts: Vec<u16> =
            (0..10).map(|_| Ok(client.send("POST", "/", &[], b"a")?.status)).collect::<Result<_>>()?;
        assert_eq!(posts.iter().filter(|status| **status == 503).count(), 5, "{settings}");
    }
    Ok(())
}

#[test]
fn each_try_has_its_own_timeout() -> Result<()> {
    let (failing, healthy) = (Upstream::start()?, Upstream::start()?);
    failing.set_behavior(Behavior::Stall);
    let settings = "timeout: 10s, outlier: off, retries: {per_try_timeout: 100ms, on: [timeout]}";
    let gateway = gateway_to(&[&failing, &healthy], settings)?;
    let mut client = gateway.client()?;
    for _ in 0..6 {
        assert_eq!(client.get("/", &[])?.status, 200);
    }
    assert_eq!((failing.requests(), healthy.requests()), (3, 6));
    let (response, began) = (client.send("POST", "/delay/400", &[], b"a")?, Instant::now());
    assert_eq!(gateway_error(&response), (504, "http_response_timeout".into()));
    assert!(began.elapsed() < Duration::from_secs(5), "the try's timeout ends long before the exchange's");
    Ok(())
}

#[test]
fn retries_stop_at_the_budget() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    [&a, &b].iter().for_each(|one| one.set_behavior(Behavior::Reset));
    let gateway = gateway_to(&[&a, &b], "outlier: off, retries: {budget_percent: 10}")?;
    for _ in 0..30 {
        let response = gateway.get("/", &[])?;
        assert_eq!(gateway_error(&response), (502, "connection_terminated".into()));
    }
    // Ten retries are always granted, and a tenth of 30 requests is less.
    assert_eq!(a.requests() + b.requests(), 40);
    assert_eq!(gateway.metric("witgate_upstream_retries_total{upstream=\"u\",result=\"failed\"}")?, 10.0);
    assert_eq!(gateway.metric("witgate_upstream_retries_total{upstream=\"u\",result=\"over_budget\"}")?, 20.0);
    Ok(())
}
