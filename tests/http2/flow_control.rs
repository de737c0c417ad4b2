//! Flow control and stream limits: large and small frames, stalled streams, and legitimate load
//! that must not trigger flood protection.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::Reason;
use harness::Upstream;
use harness::frames::{self, Frames, flag, kind};

use super::client::{connect, connect_with, fetch, read, request, run, write};
use super::scripted::{ScriptedUpstream, Session};
use super::upstream::H2Upstream;
use super::{gateway_to, start_gateway};

#[test]
fn streams_above_the_announced_limit_are_refused() -> Result<()> {
    let upstream = ScriptedUpstream::start(Session::wait_closed)?;
    let gateway = start_gateway(&upstream.yaml())?;
    let mut frames = Frames::connect(gateway.address)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut limit = None;
    while limit.is_none() {
        let frame = frames.read(deadline)?.context("the gateway closed the connection")?;
        if frame.kind == kind::SETTINGS && frame.flags & flag::ACK == 0 {
            let found = frame.payload.chunks(6).find(|entry| entry[..2] == [0, 3]);
            limit = Some(found.map(|entry| u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]])));
        }
    }
    let limit = limit.flatten().context("the gateway announces no SETTINGS_MAX_CONCURRENT_STREAMS")?;
    ensure!((1..=1000).contains(&limit), "the gateway announces {limit} concurrent streams");
    frames.send(&frames::frame(kind::SETTINGS, flag::ACK, 0, b""))?;
    for n in 0..=limit {
        frames.send(&frames::headers(2 * n + 1, &frames::get("/hang"), true))?;
    }
    let end = frames.end(2 * limit + 1, Duration::from_secs(5))?;
    ensure!(
        matches!(end, frames::End::Reset(7 | 1) | frames::End::GoAway(1)),
        "the stream above the limit was not refused: {end:?}"
    );
    Ok(())
}

#[test]
fn a_body_larger_than_the_windows_is_forwarded() -> Result<()> {
    let (h1, h2) = (Upstream::start()?, H2Upstream::start()?);
    for gateway in [gateway_to(&h1)?, start_gateway(&h2.yaml())?] {
        run(async {
            let (send, driver) = connect(gateway.address).await?;
            let large = vec![b'x'; 20 << 20];
            let response = fetch(&send, request("POST", "/length"), Some(&large)).await?;
            ensure!(response.text() == large.len().to_string(), "{} {}", response.status(), response.text());
            ensure!(!driver.is_finished(), "the gateway closed the connection");
            Ok(())
        })?;
    }
    Ok(())
}

// A stream of small messages looks like this. The limit on small frames must not treat it as a
// flood.
#[test]
fn a_body_of_many_small_frames_is_forwarded() -> Result<()> {
    let (h1, h2) = (Upstream::start()?, H2Upstream::start()?);
    for gateway in [gateway_to(&h1)?, start_gateway(&h2.yaml())?] {
        run(async {
            let (send, driver) = connect(gateway.address).await?;
            let (response, mut stream) = send.clone().ready().await?.send_request(request("POST", "/length"), false)?;
            for _ in 0..10_000 {
                write(&mut stream, Bytes::from_static(&[b'y'; 200]), false).await?;
            }
            stream.send_data(Bytes::new(), true)?;
            ensure!(read(response.await?).await?.text() == "2000000", "the upstream did not receive the whole body");
            ensure!(!driver.is_finished(), "the gateway closed the connection");
            Ok(())
        })?;
    }
    Ok(())
}

// On a slow link nearly every read ends inside a frame. The timeout applies to each frame, not to
// the time since a read last ended at a frame boundary.
#[test]
fn a_slow_upload_does_not_hit_the_timeout_of_a_single_frame() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = upstream.yaml();
    let gateway = start_gateway(&format!(
        "timeouts: {{request_head: 300ms}}\nupstreams: {{u: {yaml}}}\nroutes: [{{upstream: u}}]"
    ))?;
    let mut frames = Frames::connect(gateway.address)?;
    let post = frames::block([(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/length")]);
    frames.send(&frames::headers(1, &post, false))?;
    let data: Vec<u8> = (0..40).flat_map(|n| frames::frame(kind::DATA, u8::from(n == 39), 1, &[b'x'; 1000])).collect();
    let began = Instant::now();
    for piece in data.chunks(700) {
        frames.send(piece)?;
        std::thread::sleep(Duration::from_millis(15));
    }
    ensure!(began.elapsed() > Duration::from_millis(600), "the upload was too fast to reach the timeout");
    let end = frames.end(1, Duration::from_secs(5))?;
    ensure!(end == frames::End::Status(200), "{end:?}");
    Ok(())
}

#[test]
fn a_download_that_the_client_does_not_read_blocks_no_other_stream() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream)?;
    run(async {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(64 << 10).initial_connection_window_size(8 << 20);
        let (send, _driver) = connect_with(gateway.address, &builder).await?;
        let (stalled, _) = send.clone().ready().await?.send_request(request("GET", "/bytes/5000000"), true)?;
        let stalled = stalled.await?;
        for _ in 0..5 {
            let other = fetch(&send, request("GET", "/bytes/1000000"), None).await?;
            ensure!(other.body.len() == 1_000_000, "{}", other.body.len());
        }
        ensure!(
            read(stalled).await?.body.len() == 5_000_000,
            "the stalled download did not continue after the client read it"
        );
        Ok(())
    })
}

#[test]
fn an_upload_that_the_upstream_does_not_read_blocks_no_other_stream() -> Result<()> {
    let slow = ScriptedUpstream::start(|session| {
        session.report("request received");
        std::thread::park();
    })?;
    let quick = Upstream::start()?;
    let gateway = start_gateway(&format!(
        "upstreams: {{s: {{endpoints: [\"http://{}\"]}}, q: {}}}\nroutes: [{{match: {{path: /slow}}, upstream: s}}, {{upstream: q}}]",
        slow.address,
        quick.yaml()
    ))?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let (_response, mut stream) = send.clone().ready().await?.send_request(request("POST", "/slow"), false)?;
        // Far more than all windows and socket buffers hold.
        stream.reserve_capacity(64 << 20);
        let mut sent = 0;
        while let Ok(Some(room)) =
            tokio::time::timeout(Duration::from_millis(500), poll_fn(|cx| stream.poll_capacity(cx))).await
        {
            let room = room?;
            stream.send_data(vec![b'x'; room].into(), false)?;
            sent += room;
            ensure!(sent < 64 << 20, "the gateway buffers a body that the upstream does not read");
            stream.reserve_capacity(64 << 20);
        }
        let large = vec![b'x'; 1 << 20];
        for _ in 0..3 {
            let response = fetch(&send, request("POST", "/length"), Some(&large)).await?;
            ensure!(response.text() == "1048576", "{} {}", response.status(), response.text());
        }
        Ok(())
    })
}

#[test]
fn many_requests_with_some_cancelled_are_not_a_flood() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream)?;
    run(async {
        let (send, driver) = connect(gateway.address).await?;
        for round in 0..60 {
            // 50 concurrent requests, of which one in ten is cancelled.
            let mut open = vec![];
            for n in 0..50 {
                let (response, mut stream) =
                    send.clone().ready().await?.send_request(request("GET", "/bytes/3000"), true)?;
                if n % 10 == 9 {
                    stream.send_reset(Reason::CANCEL);
                } else {
                    open.push(tokio::spawn(async { read(response.await?).await }));
                }
            }
            for response in open {
                let response = response.await?.with_context(|| format!("round {round}"))?;
                ensure!(response.body.len() == 3000, "round {round}: {}", response.status());
            }
        }
        ensure!(!driver.is_finished(), "the gateway closed the connection");
        Ok(())
    })
}
