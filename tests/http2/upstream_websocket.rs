//! WebSocket to upstreams that speak HTTP/2 (RFC 8441).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use h2::ext::Protocol;

use super::client::{connect, fetch, request, run, write};
use super::start_gateway;
use super::upstream::H2Upstream;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Reads until the text contains `end`, or the connection ends.
fn read_until(stream: &mut TcpStream, end: &str) -> Result<String> {
    let (mut text, mut block) = (String::new(), [0; 4096]);
    while !text.contains(end) {
        match stream.read(&mut block)? {
            0 => break,
            read => text.push_str(&String::from_utf8_lossy(&block[..read])),
        }
    }
    Ok(text)
}

#[test]
fn a_websocket_of_an_http_1_client_reaches_an_http_2_upstream() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    let mut stream = TcpStream::connect(gateway.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(UPGRADE.as_bytes())?;
    let head = read_until(&mut stream, "\r\n\r\n")?.to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 101 "), "{head}");
    ensure!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    ensure!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    for message in ["one", "two"] {
        stream.write_all(message.as_bytes())?;
        let answer = read_until(&mut stream, &message.to_uppercase())?;
        ensure!(answer == message.to_uppercase(), "{answer}");
    }
    // The upstream closes after the client did.
    stream.shutdown(std::net::Shutdown::Write)?;
    let rest = read_until(&mut stream, "bye")?;
    ensure!(rest == "bye", "{rest}");
    ensure!(stream.read(&mut [0; 1])? == 0, "the tunnel is still open");
    Ok(())
}

#[test]
fn a_websocket_travels_over_http_2_on_both_sides() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    run(async {
        let (mut send, _driver) = connect(gateway.address).await?;
        fetch(&send, request("GET", "/"), None).await?;
        let mut connect = request("CONNECT", "/ws");
        connect.extensions_mut().insert(Protocol::from_static("websocket"));
        let (response, mut out) = send.send_request(connect, false)?;
        let response = response.await?;
        ensure!(response.status() == 200, "{response:?}");
        write(&mut out, "hello".into(), true).await?;
        let mut body = response.into_body();
        let mut text = vec![];
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.context("the tunnel ended early")?);
        }
        ensure!(text == b"HELLObye", "{}", text.escape_ascii());
        Ok(())
    })
}

#[test]
fn a_refused_or_impossible_websocket_has_an_honest_answer() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    let mut client = gateway.client()?;
    client.write(UPGRADE.replace("/ws", "/no-ws").as_bytes())?;
    ensure!(client.read(false)?.status == 403, "the upstream's refusal did not arrive");
    ensure!(client.get("/", &[])?.status == 200, "the connection does not serve the next request");

    let upstream = H2Upstream::start_without_connect()?;
    let gateway = start_gateway(&upstream.yaml())?;
    let mut client = gateway.client()?;
    client.write(UPGRADE.as_bytes())?;
    let response = client.read(false)?;
    ensure!(
        (response.status, response.text().contains("does not support this upgrade")) == (501, true),
        "{response:?}"
    );
    gateway.wait_logged("RFC 8441", 1);
    Ok(())
}
