//! `expect: 100-continue` and hosts that are written in two ways, over HTTP/2.

use std::future::poll_fn;
use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use http::{HeaderValue, Request};

use super::client::{connect, fetch, read, request, run, write};
use super::scripted::ScriptedUpstream;
use super::start_gateway;

fn expecting(path: &str) -> Request<()> {
    let mut request = request("POST", path);
    request.headers_mut().insert("expect", HeaderValue::from_static("100-Continue"));
    request.headers_mut().insert("content-length", HeaderValue::from_static("5"));
    request
}

/// The upstream decides whether the client may send its body (RFC 9110, section 10.1.1).
#[test]
fn a_client_continues_when_the_upstream_says_so() -> Result<()> {
    let upstream = ScriptedUpstream::start(|session| {
        session.report(if session.head.contains("expect: 100-") { "expects" } else { "does not expect" });
        if session.head.starts_with("POST /refused") {
            session.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return;
        }
        session.write("HTTP/1.1 100 Continue\r\n\r\n");
        let mut body = [0; 5];
        if session.input.read_exact(&mut body).is_ok() {
            session.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    })?;
    let routes = "[{match: {path: /forbidden}, respond: {status: 403}}, {upstream: u}]";
    let gateway = start_gateway(&upstream.yaml().replace("[{upstream: u}]", routes))?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let (mut response, mut stream) = send.clone().ready().await?.send_request(expecting("/"), false)?;
        let interim = poll_fn(|cx| response.poll_informational(cx)).await.context("there was no 100")??;
        ensure!(interim.status() == 100, "{interim:?}");
        write(&mut stream, "hello".into(), true).await?;
        ensure!(read(response.await?).await?.text() == "ok", "the body was not taken");
        // The body is never sent, and there is no 100 in front of the response.
        for (path, status) in [("/refused", 401), ("/forbidden", 403)] {
            let (mut response, _stream) = send.clone().ready().await?.send_request(expecting(path), false)?;
            let interim = poll_fn(|cx| response.poll_informational(cx)).await;
            ensure!(interim.is_none(), "{path}: {interim:?}");
            ensure!(response.await?.status() == status, "{path}");
        }
        Ok(())
    })?;
    upstream.wait("expects")?;
    upstream.wait("expects")?;
    Ok(())
}

/// A host is compared after normalization (RFC 9113, section 8.3.1).
#[test]
fn a_host_may_differ_from_the_authority_in_case_and_default_port() -> Result<()> {
    let upstream = ScriptedUpstream::start(|session| {
        session.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    })?;
    let gateway = start_gateway(&upstream.yaml())?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        for (authority, host, status) in [
            ("test:80", "TEST", 200),
            ("Test", "test:80", 200),
            ("test", "test:443", 400),
            ("test:8080", "test", 400),
            ("test", "other", 400),
        ] {
            let mut request = request("GET", "/");
            *request.uri_mut() = format!("http://{authority}/").parse()?;
            request.headers_mut().insert("host", host.parse()?);
            let response = fetch(&send, request, None).await?;
            ensure!(response.status() == status, "{authority} and {host}: {}", response.status());
        }
        Ok(())
    })
}
