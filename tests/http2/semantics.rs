//! How HTTP semantics pass between HTTP/2 and HTTP/1: trailers, interim responses, responses
//! without a body, connection fields, and responses before the end of a request.

use std::future::poll_fn;
use std::io::{BufRead as _, Read as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::Upstream;
use http::HeaderMap;

use super::client::{connect, fetch, read, request, run, write};
use super::scripted::ScriptedUpstream;
use super::upstream::H2Upstream;
use super::{gateway_to, start_gateway};

#[test]
fn trailers_are_forwarded_in_both_directions() -> Result<()> {
    let h2 = H2Upstream::start()?;
    let h1 = ScriptedUpstream::start(|session| {
        let mut text = session.head.clone();
        while !text.ends_with("\r\n\r\n") || !text.contains("\r\n0\r\n") {
            let mut line = String::new();
            if session.input.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            text.push_str(&line);
        }
        session.report(if text.contains("x-sent: 1") { "trailer" } else { "no trailer" });
        session.write(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\ncontent-length: 9\r\n\r\n",
        );
    })?;
    let to_h2 = start_gateway(&h2.yaml())?;
    let to_h1 = start_gateway(&h1.yaml())?;
    for (gateway, path, name) in [(&to_h2, "/echo", "x-sent"), (&to_h1, "/", "x-sum")] {
        run(async {
            let (send, _driver) = connect(gateway.address).await?;
            let mut with_te = request("POST", path);
            with_te.headers_mut().insert("te", "trailers".parse()?);
            let (response, mut stream) = send.ready().await?.send_request(with_te, false)?;
            write(&mut stream, "abc".into(), false).await?;
            stream.send_trailers(HeaderMap::from_iter([("x-sent".parse()?, "1".parse()?)]))?;
            let response = read(response.await?).await?;
            let trailers = response.trailers.context("the response has no trailers")?;
            ensure!(trailers.contains_key(name) && response.body == b"abc", "{path}: {trailers:?}");
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
    let h1 = ScriptedUpstream::start(|session| {
        session.write("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        session.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    })?;
    for yaml in [h1.yaml(), h2.yaml()] {
        let gateway = start_gateway(&yaml)?;
        run(async {
            let (send, _driver) = connect(gateway.address).await?;
            let (mut response, _) = send.ready().await?.send_request(request("GET", "/hint"), true)?;
            let hint =
                poll_fn(|cx| response.poll_informational(cx)).await.context("the client got no interim response")??;
            ensure!((hint.status().as_u16(), hint.headers().contains_key("link")) == (103, true), "{hint:?}");
            let response = read(response.await?).await?;
            ensure!((response.status(), response.text().as_str()) == (200, "ok"), "{}", response.status());
            Ok(())
        })?;
        let mut client = gateway.client()?;
        client.begin("GET", "/hint", &[], b"")?;
        let hint = client.read(false)?;
        ensure!(
            (hint.status, hint.header("link").is_some()) == (103, true),
            "the HTTP/1 client got {} instead of 103",
            hint.status
        );
        ensure!(client.read(false)?.text() == "ok", "the HTTP/1 client did not get the final response");
    }
    Ok(())
}

#[test]
fn responses_to_head_and_with_204_or_304_have_no_body() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream)?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let head = fetch(&send, request("HEAD", "/"), None).await?;
        let length = head.head.headers().get("content-length").and_then(|length| length.to_str().ok());
        ensure!((head.status(), length, head.body.len()) == (200, Some("2"), 0), "HEAD: {:?}", head.head);
        for status in [204, 304] {
            let response = fetch(&send, request("GET", &format!("/status/{status}")), None).await?;
            ensure!((response.status(), response.body.len()) == (status, 0), "{:?}", response.head);
        }
        Ok(())
    })
}

#[test]
fn connection_fields_do_not_reach_an_http_2_client() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream)?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        for path in ["/nominated", "/chunked"] {
            let response = fetch(&send, request("GET", path), None).await?;
            for name in ["connection", "keep-alive", "transfer-encoding", "x-secret"] {
                ensure!(!response.head.headers().contains_key(name), "{path}: {:?}", response.head);
            }
        }
        Ok(())
    })
}

#[test]
fn an_http_1_client_gets_the_response_before_it_has_sent_its_body() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    let mut client = std::net::TcpStream::connect(gateway.address)?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    std::io::Write::write_all(
        &mut client,
        b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    )?;
    let mut got = vec![];
    let mut block = [0; 4096];
    while !got.windows(3).any(|part| part == b"abc") {
        let read = client.read(&mut block).context("the gateway waits for the end of the request body")?;
        ensure!(read > 0, "the connection was closed: {}", got.escape_ascii());
        got.extend_from_slice(&block[..read]);
    }
    Ok(())
}
