//! Extended CONNECT (RFC 8441): a WebSocket over one HTTP/2 stream, to an upstream that speaks
//! HTTP/1.1.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::ext::Protocol;
use harness::Setup;
use http::Request;

use super::client::{connect, fetch, read, request, run, write};
use super::scripted::{ScriptedUpstream, Session};
use super::websocket_accept::accept_value;

/// Accepts an upgrade to WebSocket on `/ws`; other requests get a 400 or 403. Returns whether the
/// tunnel is open.
fn accept_upgrade(session: &mut Session) -> bool {
    let head = session.head.to_ascii_lowercase();
    let Some(key) = session.head.lines().find_map(|line| {
        line.split_once(':')
            .filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
            .map(|(_, key)| key.trim())
    }) else {
        session.write("HTTP/1.1 400 no key\r\ncontent-length: 0\r\n\r\n");
        return false;
    };
    let is_upgrade = head.starts_with("get /ws") && head.contains("\r\nupgrade: websocket\r\n");
    if !is_upgrade || !head.contains("\r\nconnection: upgrade\r\n") {
        session.write("HTTP/1.1 403 no\r\ncontent-length: 2\r\n\r\nno");
        return false;
    }
    let accept = accept_value(key);
    session.write(&format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    ));
    true
}

/// Returns every byte of the tunnel in upper case. Closes at a `!`.
fn uppercase_echo(session: &mut Session) {
    if !accept_upgrade(session) {
        return;
    }
    let mut block = [0; 65536];
    while let Ok(read @ 1..) = session.input.read(&mut block) {
        if block[..read].contains(&b'!') {
            return drop(session.output.shutdown(std::net::Shutdown::Both));
        }
        let _ = session.output.write_all(&block[..read].to_ascii_uppercase());
    }
    session.report("closed");
}

/// Closes its direction at once. Reports what the client still sends, and whether it then closes.
fn close_first(session: &mut Session) {
    if !accept_upgrade(session) {
        return;
    }
    session.write("server last");
    let _ = session.output.shutdown(std::net::Shutdown::Write);
    let mut rest = String::new();
    let closed = session.input.read_to_string(&mut rest).is_ok();
    session.report(&format!("{rest}, {closed}"));
}

/// An extended CONNECT request.
fn websocket(path: &str) -> Result<Request<()>> {
    let mut request = Request::builder()
        .method("CONNECT")
        .uri(format!("http://test{path}"))
        .version(http::Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .header("origin", "http://test")
        .body(())?;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    Ok(request)
}

#[test]
fn a_websocket_over_http_2_reaches_an_http_1_upstream() -> Result<()> {
    let upstream = ScriptedUpstream::start(uppercase_echo)?;
    let gateway = Setup::new(&upstream.yaml())?.start()?;
    run(async {
        let (mut send, _driver) = connect(gateway.address).await?;
        // The gateway's SETTINGS may arrive after the first response.
        fetch(&send, request("GET", "/"), None).await?;
        ensure!(send.is_extended_connect_protocol_enabled(), "SETTINGS_ENABLE_CONNECT_PROTOCOL is not announced");
        let (response, mut out) = send.send_request(websocket("/ws")?, false)?;
        let response = response.await?;
        ensure!(response.status() == 200, "the tunnel was refused with {}", response.status());
        let leaked =
            ["upgrade", "connection", "sec-websocket-accept"].map(|name| response.headers().contains_key(name));
        ensure!(leaked == [false; 3], "{:?}", response.headers());
        let mut back = response.into_body();
        for round in 0..20 {
            let text = format!("message {round}");
            write(&mut out, text.clone().into(), false).await?;
            let mut got = vec![];
            while got.len() < text.len() {
                let data = back.data().await.context("the tunnel was closed")??;
                back.flow_control().release_capacity(data.len())?;
                got.extend_from_slice(&data);
            }
            ensure!(got == text.to_ascii_uppercase().as_bytes(), "{round}: {:?}", got.escape_ascii().to_string());
        }
        // More than all windows hold, in both directions at once.
        let large = Bytes::from(vec![b'a'; 2 << 20]);
        let (written, got) = tokio::join!(write(&mut out, large.clone(), false), async {
            let mut got = 0;
            while got < large.len() {
                let data = back.data().await.context("the tunnel was closed")??;
                back.flow_control().release_capacity(data.len())?;
                got += data.len();
            }
            anyhow::Ok(got)
        });
        written?;
        ensure!(got? == large.len(), "the tunnel lost bytes");
        write(&mut out, "!".into(), false).await?;
        let more = back.data().await.is_some_and(|data| data.is_ok_and(|data| !data.is_empty()));
        ensure!(!more && back.is_end_stream(), "the upstream closed, and its direction of the stream is still open");
        Ok(())
    })
}

#[test]
fn a_client_reset_closes_the_upstream_side_of_the_tunnel() -> Result<()> {
    let upstream = ScriptedUpstream::start(uppercase_echo)?;
    let gateway = Setup::new(&upstream.yaml())?.start()?;
    run(async {
        let (mut send, _driver) = connect(gateway.address).await?;
        fetch(&send, request("GET", "/"), None).await?;
        let (response, mut out) = send.send_request(websocket("/ws")?, false)?;
        ensure!(response.await?.status() == 200, "the tunnel was refused");
        out.send_reset(h2::Reason::CANCEL);
        // The reset must be sent before this thread blocks on the upstream's report.
        let _ = poll_fn(|cx| out.poll_reset(cx)).await;
        fetch(&send, request("GET", "/"), None).await?;
        Ok(())
    })?;
    upstream.wait("closed")?;
    Ok(())
}

#[test]
fn a_tunnel_closes_one_direction_at_a_time() -> Result<()> {
    let upstream = ScriptedUpstream::start(close_first)?;
    let gateway = Setup::new(&upstream.yaml())?.start()?;
    // After the upstream has closed, the client either sends more and closes, or does neither. Then
    // the gateway closes the stream after a timeout.
    for client_closes in [true, false] {
        run(async {
            let (mut send, _driver) = connect(gateway.address).await?;
            fetch(&send, request("GET", "/"), None).await?;
            let (response, mut out) = send.send_request(websocket("/ws")?, false)?;
            let got = read(response.await?).await?;
            ensure!((got.status(), got.text().as_str()) == (200, "server last"), "{} {}", got.status(), got.text());
            ensure!(got.trailers.is_none(), "a tunnel has trailers: {:?}", got.trailers);
            write(&mut out, "client ".into(), false).await?;
            if client_closes {
                write(&mut out, "last".into(), true).await?;
            } else {
                // Only this stream ends, not the connection.
                let reason = poll_fn(|cx| out.poll_reset(cx)).await?;
                ensure!(reason == h2::Reason::NO_ERROR, "the stream was reset: {reason}");
            }
            fetch(&send, request("GET", "/"), None).await?;
            Ok(())
        })?;
        upstream.wait(if client_closes { "client last, true" } else { "client , true" })?;
    }
    Ok(())
}

#[test]
fn a_response_other_than_101_opens_no_tunnel() -> Result<()> {
    let upstream = ScriptedUpstream::start(uppercase_echo)?;
    let gateway = Setup::new(&upstream.yaml())?.start()?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        fetch(&send, request("GET", "/"), None).await?;
        let (response, mut out) = send.clone().ready().await?.send_request(websocket("/refuse")?, false)?;
        let response = read(response.await?).await?;
        ensure!(
            (response.status(), response.text().as_str()) == (403, "no"),
            "{} {}",
            response.status(),
            response.text()
        );
        out.send_reset(h2::Reason::CANCEL);
        let after = fetch(&send, request("GET", "/"), None).await?;
        ensure!(after.status() == 400, "the connection does not serve the next request");
        Ok(())
    })
}
