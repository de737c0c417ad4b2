//! Cancelled requests and graceful shutdown.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::frames::{self, Frames, kind};
use harness::{Upstream, wait_until};
use rustix::process::Signal;

use super::client::{self, connect, fetch, read, request, run};
use super::scripted::ScriptedUpstream;
use super::upstream::H2Upstream;
use super::{gateway_to, start_gateway};

/// Limit for the time from a client's cancellation until the upstream notices it.
const CANCEL_MAX: Duration = Duration::from_millis(100);

/// The shortest of several measurements, because a busy machine may delay one.
fn quickest(mut measure: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(measure()?);
    }
    Ok(best)
}

#[test]
fn a_cancelled_request_closes_its_http_1_upstream_connection() -> Result<()> {
    let upstream = ScriptedUpstream::start(|session| {
        session.report("request received");
        if session.head.contains("/begun") {
            session.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this");
        }
        session.wait_closed();
    })?;
    let gateway = start_gateway(&upstream.yaml())?;
    for path in ["/waiting", "/begun"] {
        let took = quickest(|| {
            let mut frames = Frames::connect(gateway.address)?;
            frames.send(&frames::headers(1, &frames::get(path), true))?;
            upstream.wait("request received")?;
            let began = Instant::now();
            frames.send(&frames::frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes()))?;
            Ok(upstream.wait("closed")?.saturating_duration_since(began))
        })?;
        ensure!(took <= CANCEL_MAX, "{path}: the upstream noticed RST_STREAM after {took:?}");
        let took = quickest(|| {
            let mut frames = Frames::connect(gateway.address)?;
            frames.send(&frames::headers(1, &frames::get(path), true))?;
            upstream.wait("request received")?;
            let began = Instant::now();
            drop(frames);
            Ok(upstream.wait("closed")?.saturating_duration_since(began))
        })?;
        ensure!(took <= CANCEL_MAX, "{path}: the upstream noticed the client's disconnect after {took:?}");
    }
    wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    Ok(())
}

#[test]
fn a_cancelled_request_resets_its_http_2_upstream_stream() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    for path in ["/hang", "/large"] {
        let took = quickest(|| {
            let (before, arrived) = (upstream.resets().len(), upstream.requests());
            let mut frames = Frames::connect(gateway.address)?;
            frames.send(&frames::headers(1, &frames::get(path), true))?;
            wait_until("the upstream has the request", || upstream.requests() > arrived);
            let began = Instant::now();
            frames.send(&frames::frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes()))?;
            wait_until("the upstream's stream is reset", || upstream.resets().len() > before);
            Ok(upstream.resets()[before].0.saturating_duration_since(began))
        })?;
        ensure!(took <= CANCEL_MAX, "{path}: the upstream noticed RST_STREAM after {took:?}");
    }
    ensure!(upstream.connections() == 1, "cancelling a stream opened more connections: {}", upstream.connections());
    ensure!(gateway.get("/", &[])?.text() == "ok", "the gateway does not serve the next request");
    Ok(())
}

#[test]
fn a_drain_sends_goaway_and_finishes_requests_in_flight() -> Result<()> {
    let upstream = Upstream::start()?;
    let mut gateway = gateway_to(&upstream)?;
    let done = run(async {
        let (send, driver) = connect(gateway.address).await?;
        let (idle, idle_driver) = connect(gateway.address).await?;
        fetch(&idle, request("GET", "/"), None).await?;
        let (slow, _) = send.clone().ready().await?.send_request(request("GET", "/delay/1000"), true)?;
        client::wait_until("the request is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0))
            .await?;
        gateway.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(Duration::from_millis(900), idle_driver).await;
        ensure!(ended.is_ok(), "the idle connection got no GOAWAY");
        let response = read(slow.await?).await?;
        ensure!(
            (response.status(), response.text().as_str()) == (200, "late"),
            "{} {}",
            response.status(),
            response.text()
        );
        let done = Instant::now();
        drop(send);
        driver.await?.context("the connection did not end with GOAWAY and NO_ERROR")?;
        Ok(done)
    })?;
    ensure!(gateway.wait(Duration::from_secs(2))?.code() == Some(0), "the gateway exited with an error");
    ensure!(done.elapsed() <= Duration::from_secs(1), "the gateway exited {:?} after the response", done.elapsed());
    Ok(())
}
