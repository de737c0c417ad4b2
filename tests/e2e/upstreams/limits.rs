//! Limits of an endpoint: requests in flight, connections, pending requests, and body timeouts.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{Client, Setup, Upstream, wait_until};

use super::{endpoint_metric, gateway_error, gateway_to, url, urls, yaml};

#[test]
fn requests_above_an_endpoint_limit_are_refused_at_once() -> Result<()> {
    for limits in ["{in_flight: 1}", "{connections: 1, pending: 0}"] {
        let upstream = Upstream::start()?;
        let gateway = gateway_to(&[&upstream], &format!("retries: {{attempts: 0}}, limits: {limits}"))?;
        let mut slow = gateway.client()?;
        slow.begin("GET", "/delay/700", &[], b"")?;
        wait_until("the first request is in flight", || upstream.requests() == 1);
        let response = gateway.get("/", &[])?;
        assert_eq!(gateway_error(&response), (503, "connection_limit_reached".into()), "{limits}");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(slow.read(false)?.text(), "late");
        wait_until("the endpoint accepts requests again", || {
            gateway.get("/", &[]).is_ok_and(|response| response.status == 200)
        });
    }
    Ok(())
}

#[test]
fn an_endpoint_at_its_limit_leaves_requests_to_the_others() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = gateway_to(&[&a, &b], "limits: {in_flight: 1}")?;
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/700", &[], b"")?;
    wait_until("the first request is in flight", || a.requests() + b.requests() == 1);
    let mut client = gateway.client()?;
    for _ in 0..10 {
        assert_eq!(client.get("/", &[])?.status, 200);
    }
    assert_eq!(slow.read(false)?.text(), "late");
    assert_eq!(a.requests().min(b.requests()), 1);
    Ok(())
}

#[test]
fn requests_queue_for_a_connection() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway =
        Setup::new(&yaml(&urls(&[&upstream]), "connect_timeout: 10s, limits: {connections: 2, pending: 20}"))?
            .workers(2)
            .start()?;
    let mut clients: Vec<Client> = (0..12).map(|_| gateway.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        client.begin("GET", "/delay/50", &[], b"")?;
    }
    let most = endpoint_metric("witgate_endpoint_connections", &upstream);
    assert!(gateway.metric(&most)? <= 2.0);
    for client in &mut clients {
        assert_eq!(client.read(false)?.text(), "late");
    }
    wait_until("no request is pending", || {
        gateway.metric(&endpoint_metric("witgate_endpoint_pending", &upstream)).is_ok_and(|n| n == 0.0)
    });
    Ok(())
}

#[test]
fn a_response_body_that_stalls_or_takes_too_long_is_aborted() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&[&upstream], "timeout: 600ms, total_timeout: 1500ms, body_idle_timeout: 300ms")?;
    let began = Instant::now();
    assert!(gateway.get("/halt", &[]).is_err(), "a truncated body must not end cleanly");
    gateway.wait_logged("it was silent for 300ms", 1);
    assert_eq!(gateway.get("/drip/20", &[])?.body.len(), 20, "a slow body is not idle");
    assert!(gateway.get("/drip/100000", &[]).is_err());
    gateway.wait_logged("not over within total_timeout", 1);
    assert!(began.elapsed() < Duration::from_secs(15));
    wait_until("the connections are closed", || {
        gateway.metric(&endpoint_metric("witgate_endpoint_connections", &upstream)).is_ok_and(|count| count <= 1.0)
    });
    Ok(())
}

#[test]
fn the_head_of_a_response_has_a_limit() -> Result<()> {
    for (setting, status) in [("", 200), ("response_head_bytes: 8KiB", 502)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(20_000));
                let _ = stream.write_all(head.as_bytes());
            }
        });
        let gateway = Setup::new(&yaml(&[url(address)], setting))?.start()?;
        assert_eq!(gateway.get("/", &[])?.status, status, "{setting}");
    }
    Ok(())
}
