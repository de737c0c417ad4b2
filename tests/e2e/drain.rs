//! Draining: requests in flight finish, no new ones start.

use std::time::Duration;

use anyhow::Result;
use harness::{Client, Gateway, Setup, Upstream, wait_until};
use rustix::process::Signal;

/// A gateway and a client whose request stays in flight for so many milliseconds.
fn busy(milliseconds: u32) -> Result<(Gateway, Client)> {
    let upstream = Upstream::start()?;
    let gateway = Setup::new(&format!("upstreams: {{u: {}}}\nroutes: [{{upstream: u}}]", upstream.yaml()))?.start()?;
    let mut slow = gateway.client()?;
    slow.begin("GET", &format!("/delay/{milliseconds}"), &[], b"")?;
    wait_until("the request is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0));
    Ok((gateway, slow))
}

#[test]
fn a_response_in_flight_is_finished_before_the_exit() -> Result<()> {
    let upstream = Upstream::start()?;
    let mut gateway =
        Setup::new(&format!("upstreams: {{u: {}}}\nroutes: [{{upstream: u}}]", upstream.yaml()))?.start()?;
    let mut idle = gateway.client()?;
    assert_eq!(idle.get("/", &[])?.status, 200);
    wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/500", &[], b"")?;
    wait_until("the request is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0));
    gateway.signal(Signal::TERM)?;
    wait_until("the gateway reports that it is not ready", || {
        gateway.admin("/readyz").is_ok_and(|response| response.status == 503)
    });
    assert!(idle.is_closed(), "an idle connection is closed");
    let address = gateway.address;
    wait_until("new connections are refused", || {
        Client::connect(address).and_then(|mut client| client.get("/", &[])).is_err()
    });
    let response = slow.read(false)?;
    assert_eq!((response.text().as_str(), response.header("connection")), ("late", Some("close")));
    assert_eq!(gateway.wait(Duration::from_secs(2))?.code(), Some(0));
    Ok(())
}

#[test]
fn a_drain_delay_accepts_connections_while_the_gateway_is_not_ready() -> Result<()> {
    let config = "timeouts: {drain_delay: 1h}\nupstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]";
    let mut gateway = Setup::new(config)?.start()?;
    gateway.signal(Signal::TERM)?;
    wait_until("the gateway reports that it is not ready", || {
        gateway.admin("/readyz").is_ok_and(|response| response.status == 503)
    });
    assert_eq!(gateway.client()?.get("/", &[])?.status, 200, "a new connection is served");
    // A second signal ends the delay. Those within half a second belong to the first.
    wait_until("the drain begins", || {
        let _ = gateway.signal(Signal::TERM);
        !gateway.logged("draining: no new connections").is_empty()
    });
    assert_eq!(gateway.wait(Duration::from_secs(5))?.code(), Some(0));
    Ok(())
}

#[test]
fn a_client_that_sent_nothing_does_not_delay_the_exit() -> Result<()> {
    let mut gateway = Setup::new("upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]")?.start()?;
    let _silent = std::net::TcpStream::connect(gateway.address)?;
    wait_until("the connection is accepted", || gateway.metric("witgate_connections").is_ok_and(|n| n == 1.0));
    gateway.signal(Signal::TERM)?;
    assert_eq!(gateway.wait(Duration::from_secs(5))?.code(), Some(0));
    Ok(())
}

#[test]
fn a_second_signal_ends_the_gateway_at_once() -> Result<()> {
    let (mut gateway, _slow) = busy(1900)?;
    gateway.signal(Signal::TERM)?;
    wait_until("the gateway drains", || !gateway.logged("draining").is_empty());
    // The gateway ignores a signal within half a second of the first, so repeat it.
    wait_until("the gateway exits", || gateway.signal(Signal::TERM).is_ok() && gateway.admin("/healthz").is_err());
    assert_eq!(gateway.wait(Duration::from_secs(1))?.code(), Some(1));
    Ok(())
}

#[test]
fn a_repeated_signal_within_half_a_second_counts_once() -> Result<()> {
    let (mut gateway, mut slow) = busy(500)?;
    gateway.signal(Signal::INT)?;
    wait_until("the gateway drains", || !gateway.logged("draining").is_empty());
    gateway.signal(Signal::TERM)?;
    assert_eq!(slow.read(false)?.text(), "late");
    assert_eq!(gateway.wait(Duration::from_secs(2))?.code(), Some(0));
    Ok(())
}
