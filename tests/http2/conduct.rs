//! How HTTP/2 behaves on both sides: upstreams, trailers, 1xx, flow control, limits, cancellation, drain.

use std::future::poll_fn;
use std::io::{BufRead as _, Read as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::Reason;
use harness::frames::{self, Frames, flag, kind};
use harness::{Gateway, Setup, Upstream, wait_until};
use http::HeaderMap;
use rustix::process::Signal;

use super::peers::{H2Upstream, Scripted, Session, connect, connect_with, fetch, read, request, run, until, write};

/// How long after a client left its upstream may still work for it.
const CANCEL_MAX: Duration = Duration::from_millis(100);

fn behind(yaml: &str) -> Result<Gateway> {
    Setup::new(yaml)?.workers(1).start()
}

fn plain(upstream: &Upstream) -> Result<Gateway> {
    let yaml = upstream.yaml().replace("2s", "20s");
    behind(&format!("upstreams: {{u: {yaml}}}\nroutes: [{{upstream: u}}]"))
}

#[test]
fn requests_of_both_versions_share_one_connection_to_an_http_2_upstream() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = behind(&upstream.yaml())?;
    let response = gateway.get("/fields?a=1", &["x-a: 1", "connection: x-b", "x-b: 2", "cookie: a=1; b=2"])?;
    let text = response.text();
    ensure!(text.starts_with("GET http://test/fields?a=1\n"), "{text}");
    ensure!(text.contains("\nx-a: 1\n") && !text.contains("\nx-b:") && !text.contains("\nconnection:"), "{text}");
    ensure!(!text.contains("\nhost: ") || text.contains("\nhost: test\n"), "{text}");
    ensure!(gateway.client()?.send("POST", "/length", &[], &vec![b'x'; 3 << 20])?.text() == "3145728", "a large body");
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let all = (0..50).map(|_| fetch(&send, request("GET", "/"), None));
        for one in all {
            ensure!(one.await?.text() == "ok", "one of fifty");
        }
        // All at once: they hang together on the upstream's connection.
        let mut open = vec![];
        for _ in 0..50 {
            open.push(send.clone().ready().await?.send_request(request("GET", "/hang"), true)?);
        }
        until("all have arrived", || upstream.requests() == 102).await
    })?;
    ensure!(upstream.connections() == 1, "{} connections", upstream.connections());
    Ok(())
}

#[test]
fn a_goaway_of_the_upstream_costs_no_request() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = behind(&upstream.yaml())?;
    let mut client = gateway.client()?;
    for round in 0..20 {
        for path in ["/", "/goodbye", "/"] {
            let response = client.get(path, &[])?;
            ensure!(response.text() == "ok", "round {round}, {path}: {} {}", response.status, response.text());
        }
    }
    ensure!(upstream.connections() > 1, "the upstream never said goodbye");
    Ok(())
}

#[test]
fn a_goaway_beside_open_streams_costs_no_body_that_exists_once() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = behind(&upstream.yaml())?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let (_open, _) = send.clone().ready().await?.send_request(request("GET", "/hang"), true)?;
        until("it hangs", || upstream.requests() == 1).await?;
        ensure!(fetch(&send, request("GET", "/goodbye"), None).await?.text() == "ok");
        let length = fetch(&send, request("POST", "/length"), Some(b"abc")).await?;
        ensure!((length.status(), length.text().as_str()) == (200, "3"), "{} {}", length.status(), length.text());
        Ok(())
    })
}

#[test]
fn an_upstream_that_refuses_every_stream_is_asked_again_once() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = behind(&upstream.yaml().replace("timeout: 20s", "timeout: 20s, retries: {attempts: 0}"))?;
    ensure!(gateway.get("/", &[])?.status == 200, "a connection to use again");
    ensure!(gateway.get("/refuse", &[])?.status == 502);
    ensure!(upstream.requests() == 3, "{} requests", upstream.requests() - 1);
    Ok(())
}

#[test]
fn a_101_over_http_2_reaches_nobody() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = behind(&upstream.yaml())?;
    let mut client = gateway.client()?;
    client.begin("GET", "/switch", &[], b"")?;
    let answer = client.read(false)?;
    ensure!(answer.status == 502, "{}", answer.status);
    Ok(())
}

#[test]
fn a_response_that_was_broken_off_has_no_clean_end() -> Result<()> {
    let (h2, h1) = (H2Upstream::start()?, Upstream::start()?);
    let to_h2 = behind(&h2.yaml())?;
    ensure!(to_h2.get("/abort", &[]).is_err(), "an h1 client takes a broken body of an h2 upstream for whole");
    for (gateway, path) in [(&to_h2, "/abort"), (&plain(&h1)?, "/cut")] {
        run(async {
            let (send, _driver) = connect(gateway.address).await?;
            let whole = fetch(&send, request("GET", path), None).await;
            ensure!(whole.is_err(), "{path}: a broken body has a clean end");
            ensure!(fetch(&send, request("GET", "/"), None).await?.text() == "ok", "{path}: the connection lives on");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn trailers_pass_both_ways() -> Result<()> {
    let h2 = H2Upstream::start()?;
    let h1 = Scripted::start(|session| {
        let mut text = session.head.clone();
        while !text.ends_with("\r\n\r\n") || !text.contains("\r\n0\r\n") {
            let mut line = String::new();
            if session.input.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            text.push_str(&line);
        }
        session.tell(if text.contains("x-sent: 1") { "trailer" } else { "no trailer" });
        session.write(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\ncontent-length: 9\r\n\r\n",
        );
    })?;
    let to_h2 = behind(&h2.yaml())?;
    let to_h1 = behind(&h1.yaml())?;
    for (gateway, path, name) in [(&to_h2, "/echo", "x-sent"), (&to_h1, "/", "x-sum")] {
        run(async {
            let (send, _driver) = connect(gateway.address).await?;
            let mut asked = request("POST", path);
            asked.headers_mut().insert("te", "trailers".parse()?);
            let (response, mut stream) = send.ready().await?.send_request(asked, false)?;
            write(&mut stream, "abc".into(), false).await?;
            stream.send_trailers(HeaderMap::from_iter([("x-sent".parse()?, "1".parse()?)]))?;
            let answer = read(response.await?).await?;
            let trailers = answer.trailers.context("no trailers came back")?;
            ensure!(trailers.contains_key(name) && answer.body == b"abc", "{path}: {trailers:?}");
            ensure!(!trailers.contains_key("content-length"), "{path}: {trailers:?}");
            Ok(())
        })?;
    }
    h1.wait("trailer")?;
    Ok(())
}

#[test]
fn an_early_hint_is_forwarded() -> Result<()> {
    let h2 = H2Upstream::start()?;
    let h1 = Scripted::start(|session| {
        session.write("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        session.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    })?;
    for yaml in [h1.yaml(), h2.yaml()] {
        let gateway = behind(&yaml)?;
        run(async {
            let (send, _driver) = connect(gateway.address).await?;
            let (mut response, _) = send.ready().await?.send_request(request("GET", "/hint"), true)?;
            let hint = poll_fn(|cx| response.poll_informational(cx)).await.context("no informational response")??;
            ensure!((hint.status().as_u16(), hint.headers().contains_key("link")) == (103, true), "{hint:?}");
            let whole = read(response.await?).await?;
            ensure!((whole.status(), whole.text().as_str()) == (200, "ok"), "{}", whole.status());
            Ok(())
        })?;
        let mut client = gateway.client()?;
        client.begin("GET", "/hint", &[], b"")?;
        let hint = client.read(false)?;
        ensure!((hint.status, hint.header("link").is_some()) == (103, true), "an h1 client got {}", hint.status);
        ensure!(client.read(false)?.text() == "ok", "and the answer");
    }
    Ok(())
}

#[test]
fn streams_above_the_announced_limit_are_refused() -> Result<()> {
    let upstream = Scripted::start(Session::until_gone)?;
    let gateway = behind(&upstream.yaml())?;
    let mut frames = Frames::connect(gateway.address)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut limit = None;
    while limit.is_none() {
        let frame = frames.read(deadline)?.context("closed")?;
        if frame.kind == kind::SETTINGS && frame.flags & flag::ACK == 0 {
            let found = frame.payload.chunks(6).find(|entry| entry[..2] == [0, 3]);
            limit = Some(found.map(|entry| u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]])));
        }
    }
    let limit = limit.flatten().context("no limit of streams is announced")?;
    ensure!((1..=1000).contains(&limit), "{limit} streams");
    frames.send(&frames::frame(kind::SETTINGS, flag::ACK, 0, b""))?;
    for n in 0..=limit {
        frames.send(&frames::headers(2 * n + 1, &frames::get("/hang"), true))?;
    }
    let end = frames.end(2 * limit + 1, Duration::from_secs(5))?;
    ensure!(matches!(end, frames::End::Reset(7 | 1) | frames::End::GoAway(1)), "the stream above the limit: {end:?}");
    Ok(())
}

#[test]
fn a_body_larger_than_the_windows_passes() -> Result<()> {
    let (h1, h2) = (Upstream::start()?, H2Upstream::start()?);
    for gateway in [plain(&h1)?, behind(&h2.yaml())?] {
        run(async {
            let (send, driver) = connect(gateway.address).await?;
            let large = vec![b'x'; 20 << 20];
            let whole = fetch(&send, request("POST", "/length"), Some(&large)).await?;
            ensure!(whole.text() == large.len().to_string(), "{} {}", whole.status(), whole.text());
            ensure!(!driver.is_finished(), "the connection lives on");
            Ok(())
        })?;
    }
    Ok(())
}

// As a stream of small messages is; a limit on small frames must not take it for a flood.
#[test]
fn a_body_of_many_small_frames_passes() -> Result<()> {
    let (h1, h2) = (Upstream::start()?, H2Upstream::start()?);
    for gateway in [plain(&h1)?, behind(&h2.yaml())?] {
        run(async {
            let (send, driver) = connect(gateway.address).await?;
            let (response, mut stream) = send.clone().ready().await?.send_request(request("POST", "/length"), false)?;
            for _ in 0..10_000 {
                write(&mut stream, Bytes::from_static(&[b'y'; 200]), false).await?;
            }
            stream.send_data(Bytes::new(), true)?;
            ensure!(read(response.await?).await?.text() == "2000000", "all of them arrived");
            ensure!(!driver.is_finished(), "the connection lives on");
            Ok(())
        })?;
    }
    Ok(())
}

// On a slow line nearly every read ends in the middle of a frame: what counts is how long one frame takes, not since when one has been under way.
#[test]
fn an_upload_in_pieces_is_not_taken_for_a_frame_without_end() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = upstream.yaml();
    let gateway =
        behind(&format!("timeouts: {{request_head: 300ms}}\nupstreams: {{u: {yaml}}}\nroutes: [{{upstream: u}}]"))?;
    let mut frames = Frames::connect(gateway.address)?;
    let post = frames::block([(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/length")]);
    frames.send(&frames::headers(1, &post, false))?;
    let data: Vec<u8> = (0..40).flat_map(|n| frames::frame(kind::DATA, u8::from(n == 39), 1, &[b'x'; 1000])).collect();
    let began = Instant::now();
    for piece in data.chunks(700) {
        frames.send(piece)?;
        std::thread::sleep(Duration::from_millis(15));
    }
    ensure!(began.elapsed() > Duration::from_millis(600), "it was too quick to show anything");
    let end = frames.end(1, Duration::from_secs(5))?;
    ensure!(end == frames::End::Status(200), "{end:?}");
    Ok(())
}

#[test]
fn a_download_that_its_client_does_not_read_holds_up_no_other() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = plain(&upstream)?;
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
        ensure!(read(stalled).await?.body.len() == 5_000_000, "and it goes on when it is read");
        Ok(())
    })
}

#[test]
fn an_upload_that_its_upstream_does_not_read_holds_up_no_other() -> Result<()> {
    let slow = Scripted::start(|session| {
        session.tell("here");
        std::thread::park();
    })?;
    let quick = Upstream::start()?;
    let gateway = behind(&format!(
        "upstreams: {{s: {{endpoints: [\"http://{}\"]}}, q: {}}}\nroutes: [{{match: {{path: /slow}}, upstream: s}}, {{upstream: q}}]",
        slow.address,
        quick.yaml()
    ))?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let (_response, mut stream) = send.clone().ready().await?.send_request(request("POST", "/slow"), false)?;
        // Far more than every window and socket buffer takes.
        stream.reserve_capacity(64 << 20);
        let mut stuck = 0;
        while let Ok(Some(room)) =
            tokio::time::timeout(Duration::from_millis(500), poll_fn(|cx| stream.poll_capacity(cx))).await
        {
            let room = room?;
            stream.send_data(vec![b'x'; room].into(), false)?;
            stuck += room;
            ensure!(stuck < 64 << 20, "the gateway takes a body that nobody reads");
            stream.reserve_capacity(64 << 20);
        }
        let large = vec![b'x'; 1 << 20];
        for _ in 0..3 {
            let whole = fetch(&send, request("POST", "/length"), Some(&large)).await?;
            ensure!(whole.text() == "1048576", "{} {}", whole.status(), whole.text());
        }
        Ok(())
    })
}

/// The best of some: a busy machine may hold one up.
fn quickest(mut measure: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(measure()?);
    }
    Ok(best)
}

#[test]
fn what_the_client_cancels_ends_at_an_http_1_upstream() -> Result<()> {
    let upstream = Scripted::start(|session| {
        session.tell("here");
        if session.head.contains("/begun") {
            session.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this");
        }
        session.until_gone();
    })?;
    let gateway = behind(&upstream.yaml())?;
    for path in ["/waiting", "/begun"] {
        let took = quickest(|| {
            let mut frames = Frames::connect(gateway.address)?;
            frames.send(&frames::headers(1, &frames::get(path), true))?;
            upstream.wait("here")?;
            let began = Instant::now();
            frames.send(&frames::frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes()))?;
            Ok(upstream.wait("gone")?.saturating_duration_since(began))
        })?;
        ensure!(took <= CANCEL_MAX, "{path}: RST_STREAM reached the upstream after {took:?}");
        let took = quickest(|| {
            let mut frames = Frames::connect(gateway.address)?;
            frames.send(&frames::headers(1, &frames::get(path), true))?;
            upstream.wait("here")?;
            let began = Instant::now();
            drop(frames);
            Ok(upstream.wait("gone")?.saturating_duration_since(began))
        })?;
        ensure!(took <= CANCEL_MAX, "{path}: the connection's end reached the upstream after {took:?}");
    }
    wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    Ok(())
}

#[test]
fn what_the_client_cancels_ends_at_an_http_2_upstream() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = behind(&upstream.yaml())?;
    for path in ["/hang", "/large"] {
        let took = quickest(|| {
            let (before, arrived) = (upstream.resets().len(), upstream.requests());
            let mut frames = Frames::connect(gateway.address)?;
            frames.send(&frames::headers(1, &frames::get(path), true))?;
            wait_until("the upstream has it", || upstream.requests() > arrived);
            let began = Instant::now();
            frames.send(&frames::frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes()))?;
            wait_until("the upstream's stream is reset", || upstream.resets().len() > before);
            Ok(upstream.resets()[before].0.saturating_duration_since(began))
        })?;
        ensure!(took <= CANCEL_MAX, "{path}: RST_STREAM reached the upstream after {took:?}");
    }
    ensure!(upstream.connections() == 1, "a cancelled stream costs no connection: {}", upstream.connections());
    ensure!(gateway.get("/", &[])?.text() == "ok", "and it serves on");
    Ok(())
}

#[test]
fn a_drain_says_goaway_and_finishes_what_is_in_flight() -> Result<()> {
    let upstream = Upstream::start()?;
    let mut gateway = plain(&upstream)?;
    let done = run(async {
        let (send, driver) = connect(gateway.address).await?;
        let (idle, idle_driver) = connect(gateway.address).await?;
        fetch(&idle, request("GET", "/"), None).await?;
        let (slow, _) = send.clone().ready().await?.send_request(request("GET", "/delay/1000"), true)?;
        until("it is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0)).await?;
        gateway.signal(Signal::TERM)?;
        let over = tokio::time::timeout(Duration::from_millis(900), idle_driver).await;
        ensure!(over.is_ok(), "an idle connection is not told to go");
        let whole = read(slow.await?).await?;
        ensure!((whole.status(), whole.text().as_str()) == (200, "late"), "{} {}", whole.status(), whole.text());
        let done = Instant::now();
        drop(send);
        driver.await?.context("the connection ends with GOAWAY and NO_ERROR")?;
        Ok(done)
    })?;
    ensure!(gateway.wait(Duration::from_secs(2))?.code() == Some(0), "a clean exit");
    ensure!(done.elapsed() <= Duration::from_secs(1), "exit {:?} after the response", done.elapsed());
    Ok(())
}

#[test]
fn responses_without_a_body_have_none() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = plain(&upstream)?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let head = fetch(&send, request("HEAD", "/"), None).await?;
        let length = head.head.headers().get("content-length").and_then(|length| length.to_str().ok());
        ensure!((head.status(), length, head.body.len()) == (200, Some("2"), 0), "HEAD: {:?}", head.head);
        for status in [204, 304] {
            let answer = fetch(&send, request("GET", &format!("/status/{status}")), None).await?;
            ensure!((answer.status(), answer.body.len()) == (status, 0), "{:?}", answer.head);
        }
        Ok(())
    })
}

#[test]
fn fields_of_one_connection_do_not_reach_a_client_on_http_2() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = plain(&upstream)?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        for path in ["/nominated", "/chunked"] {
            let answer = fetch(&send, request("GET", path), None).await?;
            for name in ["connection", "keep-alive", "transfer-encoding", "x-secret"] {
                ensure!(!answer.head.headers().contains_key(name), "{path}: {:?}", answer.head);
            }
        }
        Ok(())
    })
}

#[test]
fn a_busy_honest_client_is_not_taken_for_an_attacker() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = plain(&upstream)?;
    run(async {
        let (send, driver) = connect(gateway.address).await?;
        for round in 0..60 {
            // Fifty at once, and one in ten is given up.
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
                let whole = response.await?.with_context(|| format!("round {round}"))?;
                ensure!(whole.body.len() == 3000, "round {round}: {}", whole.status());
            }
        }
        ensure!(!driver.is_finished(), "the connection was cut");
        Ok(())
    })
}

#[test]
fn an_http_1_client_gets_an_answer_before_its_body_is_done() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = behind(&upstream.yaml())?;
    let mut client = std::net::TcpStream::connect(gateway.address)?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    std::io::Write::write_all(
        &mut client,
        b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    )?;
    let mut got = vec![];
    let mut block = [0; 4096];
    while !got.windows(3).any(|part| part == b"abc") {
        let read = client.read(&mut block).context("the echo waits for the whole body")?;
        ensure!(read > 0, "closed: {}", got.escape_ascii());
        got.extend_from_slice(&block[..read]);
    }
    Ok(())
}
