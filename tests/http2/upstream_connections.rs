//! HTTP/2 connections to upstreams: sharing, GOAWAY, refused streams, and invalid responses.

use anyhow::{Result, ensure};
use harness::Upstream;

use super::client::{connect, fetch, request, run, wait_until};
use super::upstream::H2Upstream;
use super::{gateway_to, start_gateway};

#[test]
fn http_1_and_http_2_clients_share_one_connection_to_an_http_2_upstream() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    let response = gateway.get("/fields?a=1", &["x-a: 1", "connection: x-b", "x-b: 2", "cookie: a=1; b=2"])?;
    let text = response.text();
    ensure!(text.starts_with("GET http://test/fields?a=1\n"), "{text}");
    ensure!(text.contains("\nx-a: 1\n") && !text.contains("\nx-b:") && !text.contains("\nconnection:"), "{text}");
    ensure!(!text.contains("\nhost: ") || text.contains("\nhost: test\n"), "{text}");
    ensure!(
        gateway.client()?.send("POST", "/length", &[], &vec![b'x'; 3 << 20])?.text() == "3145728",
        "the upstream received only a part of a large body"
    );
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let responses = (0..50).map(|_| fetch(&send, request("GET", "/"), None));
        for response in responses {
            ensure!(response.await?.text() == "ok", "one of 50 responses is wrong");
        }
        // All 50 streams are open on the upstream's connection at the same time.
        let mut open = vec![];
        for _ in 0..50 {
            open.push(send.clone().ready().await?.send_request(request("GET", "/hang"), true)?);
        }
        wait_until("all requests have arrived", || upstream.requests() == 102).await
    })?;
    ensure!(upstream.connections() == 1, "the upstream has {} connections instead of 1", upstream.connections());
    Ok(())
}

#[test]
fn a_goaway_of_the_upstream_fails_no_request() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    let mut client = gateway.client()?;
    for round in 0..20 {
        for path in ["/", "/goodbye", "/"] {
            let response = client.get(path, &[])?;
            ensure!(response.text() == "ok", "round {round}, {path}: {} {}", response.status, response.text());
        }
    }
    ensure!(upstream.connections() > 1, "the upstream never sent GOAWAY");
    Ok(())
}

#[test]
fn a_goaway_beside_open_streams_fails_no_request_with_a_body() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let (_open, _) = send.clone().ready().await?.send_request(request("GET", "/hang"), true)?;
        wait_until("the request hangs", || upstream.requests() == 1).await?;
        ensure!(fetch(&send, request("GET", "/goodbye"), None).await?.text() == "ok");
        let length = fetch(&send, request("POST", "/length"), Some(b"abc")).await?;
        ensure!((length.status(), length.text().as_str()) == (200, "3"), "{} {}", length.status(), length.text());
        Ok(())
    })
}

#[test]
fn a_refused_stream_is_retried_once() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml().replace("timeout: 20s", "timeout: 20s, retries: {attempts: 0}"))?;
    ensure!(gateway.get("/", &[])?.status == 200, "the first request must open the connection");
    ensure!(gateway.get("/refuse", &[])?.status == 502);
    ensure!(upstream.requests() == 3, "the refused request was sent {} times instead of 2", upstream.requests() - 1);
    Ok(())
}

#[test]
fn a_101_over_http_2_becomes_502() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = start_gateway(&upstream.yaml())?;
    let mut client = gateway.client()?;
    client.begin("GET", "/switch", &[], b"")?;
    let response = client.read(false)?;
    ensure!(response.status == 502, "{}", response.status);
    Ok(())
}

#[test]
fn a_truncated_response_has_no_clean_end() -> Result<()> {
    let (h2, h1) = (H2Upstream::start()?, Upstream::start()?);
    let to_h2 = start_gateway(&h2.yaml())?;
    ensure!(to_h2.get("/abort", &[]).is_err(), "the HTTP/1 client got a clean end for a truncated HTTP/2 body");
    for (gateway, path) in [(&to_h2, "/abort"), (&gateway_to(&h1)?, "/cut")] {
        run(async {
            let (send, _driver) = connect(gateway.address).await?;
            let response = fetch(&send, request("GET", path), None).await;
            ensure!(response.is_err(), "{path}: the truncated body has a clean end");
            ensure!(
                fetch(&send, request("GET", "/"), None).await?.text() == "ok",
                "{path}: the connection does not serve the next request"
            );
            Ok(())
        })?;
    }
    Ok(())
}
