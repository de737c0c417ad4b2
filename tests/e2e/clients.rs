//! Client identity: PROXY headers, trusted proxies and the connection limit for each client.

use anyhow::Result;
use harness::{Client, Gateway, Setup, wait_until};

const ECHO: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";

fn proxied(more: &str) -> Result<Gateway> {
    Setup::new(&format!("{more}\n{ECHO}"))?.listener("proxy_protocol: true").start()
}

#[test]
fn a_proxy_header_sets_the_client_address() -> Result<()> {
    let gateway = proxied("")?;
    let mut version_1 = gateway.client()?;
    version_1.write(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n")?;
    assert_eq!(version_1.get("/", &[])?.echoed("x-forwarded-for").as_deref(), Some("192.0.2.7"));
    assert_eq!(
        version_1.get("/", &[])?.echoed("x-forwarded-for").as_deref(),
        Some("192.0.2.7"),
        "the address holds for every request of the connection"
    );

    let mut version_2 = gateway.client()?;
    let addresses = [198, 51, 100, 9, 192, 0, 2, 1, 0x12, 0x67, 0, 80];
    version_2.write(&[b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &addresses].concat())?;
    assert_eq!(version_2.get("/", &[])?.echoed("x-forwarded-for").as_deref(), Some("198.51.100.9"));

    let mut unknown = gateway.client()?;
    unknown.write(b"PROXY UNKNOWN\r\n")?;
    assert_eq!(
        unknown.get("/", &[])?.echoed("x-forwarded-for").as_deref(),
        Some("127.0.0.1"),
        "UNKNOWN keeps the peer's address"
    );
    Ok(())
}

#[test]
fn a_connection_without_a_valid_proxy_header_is_closed() -> Result<()> {
    let gateway = proxied("timeouts: {request_head: 200ms}")?;
    for start in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "PROXY TCP4 192.0.2.7\r\n", "PROXY TCP4 192"] {
        let mut client = gateway.client()?;
        client.write(start.as_bytes())?;
        assert!(client.read(false).is_err(), "the gateway must close without a response after {start:?}");
    }
    assert_eq!(gateway.metric("witgate_requests_total{route=\"-\",method=\"other\",status=\"400\"}")?, 0.0);
    Ok(())
}

#[test]
fn only_trusted_proxies_may_set_forwarded_fields() -> Result<()> {
    let claims = ["x-forwarded-for: 203.0.113.5", "x-forwarded-proto: https", "x-request-id: theirs"];
    let seen =
        |gateway: &Gateway, name: &str| -> Result<Option<String>> { Ok(gateway.get("/", &claims)?.echoed(name)) };
    let stranger = Setup::new(ECHO)?.start()?;
    assert_eq!(seen(&stranger, "x-forwarded-for")?.as_deref(), Some("127.0.0.1"));
    assert_eq!(seen(&stranger, "x-forwarded-proto")?.as_deref(), Some("http"));
    assert_ne!(seen(&stranger, "x-request-id")?.as_deref(), Some("theirs"));
    let trusting = Setup::new(&format!("trusted_proxies: [127.0.0.0/8]\n{ECHO}"))?.start()?;
    assert_eq!(seen(&trusting, "x-forwarded-for")?.as_deref(), Some("203.0.113.5, 127.0.0.1"));
    assert_eq!(seen(&trusting, "x-forwarded-proto")?.as_deref(), Some("https"));
    assert_eq!(seen(&trusting, "x-request-id")?.as_deref(), Some("theirs"));
    Ok(())
}

#[test]
fn connections_are_limited_for_each_client() -> Result<()> {
    let gateway = proxied("limits: {connections_per_client: 2}")?;
    let connect = |client: &str| -> Result<Client> {
        let mut connection = gateway.client()?;
        connection.write(format!("PROXY TCP4 {client} 192.0.2.1 1 80\r\n").as_bytes())?;
        Ok(connection)
    };
    let (mut first, mut second) = (connect("192.0.2.7")?, connect("192.0.2.7")?);
    assert_eq!((first.get("/", &[])?.status, second.get("/", &[])?.status), (200, 200));
    assert!(connect("192.0.2.7")?.is_closed(), "a third connection of the same client is closed");
    assert_eq!(connect("192.0.2.8")?.get("/", &[])?.status, 200, "another client is served");
    assert_eq!(gateway.metric("witgate_refused_connections_total")?, 1.0);
    drop(first);
    wait_until("the client may connect again", || {
        connect("192.0.2.7").and_then(|mut third| third.get("/", &[])).is_ok_and(|response| response.status == 200)
    });
    Ok(())
}
