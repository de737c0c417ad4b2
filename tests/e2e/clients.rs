//! Client identity: PROXY headers, trusted proxies, and each client's share of connections and
//! exchanges.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{Client, Gateway, Setup, Upstream, wait_until};

const ECHO: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";

fn proxied(more: &str) -> Result<Gateway> {
    Setup::new(&format!("trusted_proxies: [127.0.0.1]\n{more}\n{ECHO}"))?.listener("proxy_protocol: true").start()
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

/// Anybody could name any client.
#[test]
fn proxy_headers_come_from_trusted_proxies_only() -> Result<()> {
    for trusted in ["", "trusted_proxies: [192.0.2.0/24]\n"] {
        let gateway = Setup::new(&format!("{trusted}{ECHO}"))?.listener("proxy_protocol: true").start()?;
        let mut stranger = gateway.client()?;
        stranger.write(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")?;
        assert!(stranger.read(false).is_err(), "closed without a response");
        gateway.wait_logged("the peer is not in trusted_proxies", 1);
    }
    let (code, text) = Setup::new(ECHO)?.listener("proxy_protocol: true").check()?;
    assert!(code == Some(0) && text.contains("because trusted_proxies is empty"), "{text}");
    Ok(())
}

/// Fills a gateway with requests of one client, then asks as another one. Returns the statuses of
/// the refused requests.
fn flood(limits: &str, requests: usize, named: bool) -> Result<Vec<u16>> {
    let upstream = Upstream::start()?;
    let trusted = if named { "trusted_proxies: [127.0.0.2]\n" } else { "" };
    let yaml = format!(
        "{trusted}limits: {{{limits}}}\nupstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let gateway = Setup::new(&yaml)?.start()?;
    let fields: &[&str] = if named { &["x-forwarded-for: 203.0.113.5"] } else { &[] };
    let mut greedy = vec![];
    for _ in 0..requests {
        let mut client = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), gateway.address)?;
        client.begin("GET", "/delay/1500", fields, b"")?;
        greedy.push(client);
    }
    wait_until("the gateway has all requests", || {
        let refused = "witgate_requests_total{route=\"-\",method=\"GET\",status=\"429\"}";
        let (open, refused) = (gateway.metric("witgate_in_flight"), gateway.metric(refused));
        open.is_ok_and(|open| refused.is_ok_and(|refused| (open + refused) as usize == requests))
    });
    assert_eq!(gateway.get("/", &[])?.status, 200, "another client is served");
    let mut statuses = vec![];
    for client in &mut greedy {
        statuses.push(client.read(false)?.status);
    }
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    statuses.retain(|status| *status != 200);
    Ok(statuses)
}

#[test]
fn one_client_cannot_use_up_the_exchanges() -> Result<()> {
    // Half of the exchanges, or a few less: a request that is being refused counts for an instant.
    let half = 60..=66;
    for named in [false, true] {
        let refused = flood("in_flight: 80", 100, named)?.len();
        assert!(half.contains(&refused), "{refused} requests are refused, named by a proxy: {named}");
    }
    assert_eq!(flood("in_flight: 80, in_flight_per_client: 10", 20, false)?.len(), 10);
    Ok(())
}

#[test]
fn a_silent_connection_ends_soon() -> Result<()> {
    let gateway = Setup::new(&format!("timeouts: {{request_head: 300ms, idle: 60s}}\n{ECHO}"))?.start()?;
    let (began, mut silent) = (Instant::now(), gateway.client()?);
    let mut used = gateway.client()?;
    assert_eq!(used.get("/", &[])?.status, 200);
    assert!(silent.is_closed() && began.elapsed() < Duration::from_secs(10));
    assert_eq!(used.get("/", &[])?.status, 200, "a connection between two requests waits for longer");
    Ok(())
}

#[test]
fn idle_connections_make_room_for_new_ones() -> Result<()> {
    let gateway = Setup::new(&format!("limits: {{connections: 12}}\n{ECHO}"))?.start()?;
    let mut idle = vec![];
    for _ in 0..12 {
        let mut client = gateway.client()?;
        assert_eq!(client.get("/", &[])?.status, 200);
        idle.push(client);
    }
    let began = Instant::now();
    assert_eq!(gateway.get("/", &[])?.status, 200, "a new connection is served");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let evicted = gateway.metric("witgate_evicted_connections_total")?;
    assert!((1.0..=4.0).contains(&evicted), "{evicted}");
    assert!(idle[11].get("/", &[]).is_ok_and(|response| response.status == 200), "the newest connection stays");
    Ok(())
}

#[test]
fn silent_connections_of_one_client_lock_no_other_client_out() -> Result<()> {
    let gateway = Setup::new(&format!("limits: {{connections: 300}}\n{ECHO}"))?.start()?;
    let attacker = Ipv4Addr::new(127, 0, 0, 2);
    let silent: Vec<_> = (0..400).map(|_| Client::connect_from(attacker, gateway.address)).collect();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(gateway.get("/", &[])?.status, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    assert!(gateway.metric("witgate_refused_connections_total")? >= 200.0);
    drop(silent);
    Ok(())
}
