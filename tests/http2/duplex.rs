//! Extended CONNECT (RFC 8441): a WebSocket over one stream of HTTP/2, to an upstream that speaks HTTP/1.1.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::ext::Protocol;
use harness::Setup;
use http::Request;

use super::peers::{Scripted, Session, connect, read, run, write};

/// Answers `Upgrade: websocket` as RFC 6455 says; `/refuse` gets a 403. Whether there is a tunnel now.
fn switch(session: &mut Session) -> bool {
    let head = session.head.to_ascii_lowercase();
    let Some(key) = session.head.lines().find_map(|line| {
        line.split_once(':')
            .filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
            .map(|(_, key)| key.trim())
    }) else {
        session.write("HTTP/1.1 400 no key\r\ncontent-length: 0\r\n\r\n");
        return false;
    };
    let asked = head.starts_with("get /ws") && head.contains("\r\nupgrade: websocket\r\n");
    if !asked || !head.contains("\r\nconnection: upgrade\r\n") {
        session.write("HTTP/1.1 403 no\r\ncontent-length: 2\r\n\r\nno");
        return false;
    }
    let accept = base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()));
    session.write(&format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    ));
    true
}

/// Sends every byte of a tunnel back in upper case.
fn upstream(session: &mut Session) {
    if !switch(session) {
        return;
    }
    let mut block = [0; 65536];
    while let Ok(read @ 1..) = session.input.read(&mut block) {
        if block[..read].contains(&b'!') {
            return drop(session.output.shutdown(std::net::Shutdown::Both));
        }
        let _ = session.output.write_all(&block[..read].to_ascii_uppercase());
    }
    session.tell("gone");
}

/// Says its last at once, and tells what the client still sends, and its end.
fn ends_first(session: &mut Session) {
    if !switch(session) {
        return;
    }
    session.write("server last");
    let _ = session.output.shutdown(std::net::Shutdown::Write);
    let mut rest = String::new();
    let ended = session.input.read_to_string(&mut rest).is_ok();
    session.tell(&format!("{rest}, {ended}"));
}

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
    let upstream = Scripted::start(upstream)?;
    let gateway = Setup::new(&upstream.yaml())?.start()?;
    run(async {
        let (mut send, _driver) = connect(gateway.address).await?;
        // SETTINGS may be behind the first answer.
        super::peers::fetch(&send, super::peers::request("GET", "/"), None).await?;
        ensure!(send.is_extended_connect_protocol_enabled(), "SETTINGS_ENABLE_CONNECT_PROTOCOL is not announced");
        let (response, mut out) = send.send_request(websocket("/ws")?, false)?;
        let response = response.await?;
        ensure!(response.status() == 200, "the tunnel got {}", response.status());
        let leaked =
            ["upgrade", "connection", "sec-websocket-accept"].map(|name| response.headers().contains_key(name));
        ensure!(leaked == [false; 3], "{:?}", response.headers());
        let mut back = response.into_body();
        for round in 0..20 {
            let text = format!("message {round}");
            write(&mut out, text.clone().into(), false).await?;
            let mut got = vec![];
            while got.len() < text.len() {
                let data = back.data().await.context("the tunnel ended")??;
                back.flow_control().release_capacity(data.len())?;
                got.extend_from_slice(&data);
            }
            ensure!(got == text.to_ascii_uppercase().as_bytes(), "{round}: {:?}", got.escape_ascii().to_string());
        }
        // Larger than every window, both ways at once.
        let large = Bytes::from(vec![b'a'; 2 << 20]);
        let (wrote, got) = tokio::join!(write(&mut out, large.clone(), false), async {
            let mut got = 0;
            while got < large.len() {
                let data = back.data().await.context("the tunnel ended")??;
                back.flow_control().release_capacity(data.len())?;
                got += data.len();
            }
            anyhow::Ok(got)
        });
        wrote?;
        ensure!(got? == large.len(), "bytes were lost");
        write(&mut out, "!".into(), false).await?;
        let more = back.data().await.is_some_and(|data| data.is_ok_and(|data| !data.is_empty()));
        ensure!(!more && back.is_end_stream(), "the upstream's end ends its direction");
        Ok(())
    })
}

#[test]
fn a_tunnel_that_the_client_resets_is_closed_to_the_upstream() -> Result<()> {
    let upstream = Scripted::start(upstream)?;
    let gateway = Setup::new(&upstream.yaml())?.start()?;
    run(async {
        let (mut send, _driver) = connect(gateway.address).await?;
        super::peers::fetch(&send, super::peers::request("GET", "/"), None).await?;
        let (response, mut out) = send.send_request(websocket("/ws")?, false)?;
        ensure!(response.await?.status() == 200, "the tunnel is open");
        out.send_reset(h2::Reason::CANCEL);
        // The reset must leave this thread before it waits for the upstream.
        let _ = poll_fn(|cx| out.poll_reset(cx)).await;
        super::peers::fetch(&send, super::peers::request("GET", "/"), None).await?;
        Ok(())
    })?;
    upstream.wait("gone")?;
    Ok(())
}

#[test]
fn a_tunnel_closes_one_direction_at_a_time() -> Result<()> {
    let upstream = Scripted::start(ends_first)?;
    let gateway = Setup::new(&upstream.yaml())?.start()?;
    // The client says its last after the upstream's end; or nothing more, and is not waited for without end.
    for client_ends in [true, false] {
        run(async {
            let (mut send, _driver) = connect(gateway.address).await?;
            super::peers::fetch(&send, super::peers::request("GET", "/"), None).await?;
            let (response, mut out) = send.send_request(websocket("/ws")?, false)?;
            let got = read(response.await?).await?;
            ensure!((got.status(), got.text().as_str()) == (200, "server last"), "{} {}", got.status(), got.text());
            ensure!(got.trailers.is_none(), "a tunnel has DATA only: {:?}", got.trailers);
            write(&mut out, "client ".into(), false).await?;
            if client_ends {
                write(&mut out, "last".into(), true).await?;
            } else {
                // This stream alone is over.
                let reason = poll_fn(|cx| out.poll_reset(cx)).await?;
                ensure!(reason == h2::Reason::NO_ERROR, "the stream was reset: {reason}");
            }
            super::peers::fetch(&send, super::peers::request("GET", "/"), None).await?;
            Ok(())
        })?;
        upstream.wait(if client_ends { "client last, true" } else { "client , true" })?;
    }
    Ok(())
}

#[test]
fn no_tunnel_without_a_101() -> Result<()> {
    let upstream = Scripted::start(upstream)?;
    let gateway = Setup::new(&upstream.yaml())?.start()?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        super::peers::fetch(&send, super::peers::request("GET", "/"), None).await?;
        let (response, mut out) = send.clone().ready().await?.send_request(websocket("/refuse")?, false)?;
        let answer = read(response.await?).await?;
        ensure!((answer.status(), answer.text().as_str()) == (403, "no"), "{} {}", answer.status(), answer.text());
        out.send_reset(h2::Reason::CANCEL);
        let after = super::peers::fetch(&send, super::peers::request("GET", "/"), None).await?;
        ensure!(after.status() == 400, "the connection lives on");
        Ok(())
    })
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number = part.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for at in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= part.len() { letter.into() } else { '=' });
        }
    }
    text
}

/// SHA-1 (RFC 3174), which RFC 6455 asks for and nothing else should.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut message = bytes.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in message.chunks(64) {
        let mut w = [0_u32; 80];
        for (at, word) in block.chunks(4).enumerate() {
            w[at] = word.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            w[at] = (w[at - 3] ^ w[at - 8] ^ w[at - 14] ^ w[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in w.iter().enumerate() {
            let (f, k) = match at / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (total, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *total = total.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[test]
fn the_accept_key_of_the_rfc() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    assert_eq!(base64(&sha1(key.as_bytes())), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
