//! Names with several addresses, SRV records and UNIX sockets: each address is an endpoint.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixListener;

use anyhow::{Context as _, Result};
use harness::{Behavior, Client, Dns, Gateway, Setup, Upstream, wait_until};

use super::{gateway_error, serving_endpoint};

/// Servers with one port at these addresses of 127.0.0.0/8.
fn servers(last: &[u8]) -> Result<Vec<Upstream>> {
    // Another test may use the port at one of the addresses.
    for _ in 0..20 {
        let first = Upstream::at(SocketAddr::from(([127, 0, 0, last[0]], 0)))?;
        let port = first.address.port();
        let others = last[1..].iter().map(|last| Upstream::at(SocketAddr::from(([127, 0, 0, *last], port))));
        if let Ok(others) = others.collect::<Result<Vec<_>>>() {
            return Ok(std::iter::once(first).chain(others).collect());
        }
    }
    anyhow::bail!("no port is free at all addresses")
}

fn ips(last: &[u8]) -> Vec<IpAddr> {
    last.iter().map(|last| IpAddr::from([127, 0, 0, *last])).collect()
}

fn gateway(dns: &Dns, endpoint: &str, settings: &str) -> Result<Gateway> {
    Setup::new(&format!(
        "dns: {{servers: [\"{}\"]}}\nupstreams: {{u: {{endpoints: [\"{endpoint}\"], resolve_interval: 1s, {settings}}}}}\nroutes: [{{upstream: u}}]",
        dns.address
    ))?
    .workers(1)
    .start()
}

/// How many of `count` requests each address served.
fn served(client: &mut Client, count: usize) -> Result<BTreeMap<String, usize>> {
    let mut served = BTreeMap::new();
    for _ in 0..count {
        *served.entry(serving_endpoint(client, &[])?).or_default() += 1;
    }
    Ok(served)
}

/// The endpoints that `/upstreams` shows.
fn listed(gateway: &Gateway) -> Result<Vec<serde_json::Value>> {
    Ok(gateway.admin("/upstreams")?.json()[0]["endpoints"].as_array().cloned().unwrap_or_default())
}

#[test]
fn each_address_of_a_name_is_an_endpoint_and_keeps_its_state() -> Result<()> {
    let (dns, all) = (Dns::start()?, servers(&[1, 2, 3, 4])?);
    dns.set_addresses("many.test", &ips(&[1, 2, 3]));
    let url = format!("http://many.test:{}", all[0].address.port());
    let settings = "retries: {attempts: 0}, outlier: {failures: 1, eject: 60s}";
    let gateway = gateway(&dns, &url, settings)?;
    let mut client = gateway.client()?;
    let counts = served(&mut client, 60)?;
    assert_eq!(counts.values().collect::<Vec<_>>(), [&20, &20, &20], "{counts:?}");
    let shown = listed(&gateway)?;
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert_eq!(shown[0]["endpoint"], all[0].address.to_string());
    assert_eq!(shown[0]["host"], url["http://".len()..]);
    let metrics = gateway.admin("/metrics")?.text();
    assert!(all[..3].iter().all(|one| metrics.contains(&format!("endpoint=\"{}\"", one.address))), "{metrics}");

    // One address is ejected. DNS replaces another one: the ejection stays.
    all[0].set_behavior(Behavior::Status(503));
    wait_until("the endpoint is ejected", || {
        let _ = client.get("/", &[]);
        listed(&gateway).is_ok_and(|list| list.iter().any(|one| !one["ejected_for_seconds"].is_null()))
    });
    all[0].set_behavior(Behavior::FollowPath);
    dns.set_addresses("many.test", &ips(&[4, 2, 1]));
    wait_until("the new address gets requests", || {
        let _ = client.get("/", &[]);
        all[3].requests() > 0
    });
    let counts = served(&mut client, 20)?;
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&all[1].address.to_string(), &all[3].address.to_string()]);
    let metrics = gateway.admin("/metrics")?.text();
    assert!(!metrics.contains(&format!("\"{}\"", all[2].address)), "the address that is gone still has metrics");
    Ok(())
}

#[test]
fn an_address_where_nobody_listens_fails_no_request_of_its_name() -> Result<()> {
    let (dns, upstream) = (Dns::start()?, Upstream::start()?);
    dns.set_addresses("half.test", &[IpAddr::from([127, 0, 0, 1]), "::1".parse()?, IpAddr::from([127, 0, 0, 9])]);
    let url = format!("http://half.test:{}", upstream.address.port());
    let gateway = gateway(&dns, &url, "retries: {attempts: 0}, outlier: off")?;
    let mut client = gateway.client()?;
    for _ in 0..30 {
        let response = client.send("POST", "/length", &[], b"abc")?;
        assert_eq!((response.status, response.text().as_str()), (200, "3"));
    }
    Ok(())
}

#[test]
fn a_name_has_at_most_64_endpoints() -> Result<()> {
    let (dns, upstream) = (Dns::start()?, Upstream::start()?);
    // More do not fit into one answer over UDP.
    dns.set_addresses("wide.test", &ips(&(1..=70).collect::<Vec<u8>>()));
    let gateway = gateway(&dns, &format!("http://wide.test:{}", upstream.address.port()), "")?;
    assert_eq!(gateway.get("/", &[])?.status, 200);
    assert_eq!(listed(&gateway)?.len(), 64);
    Ok(())
}

#[test]
fn an_unresolved_name_is_listed_and_found_later() -> Result<()> {
    let (dns, upstream) = (Dns::start()?, Upstream::start()?);
    let gateway = gateway(&dns, &format!("http://later.test:{}", upstream.address.port()), "")?;
    assert_eq!(gateway_error(&gateway.get("/", &[])?), (502, "dns_error".into()));
    let unresolved = gateway.admin("/upstreams")?.json()[0]["unresolved"].clone();
    assert_eq!(unresolved[0], format!("later.test:{}", upstream.address.port()));
    dns.set_addresses("later.test", &ips(&[1]));
    wait_until("the name is resolved", || gateway.get("/", &[]).is_ok_and(|response| response.status == 200));
    Ok(())
}

#[test]
fn srv_records_give_ports_and_weights() -> Result<()> {
    let (dns, heavy, light, spare) = (Dns::start()?, Upstream::start()?, Upstream::start()?, Upstream::start()?);
    let service = |priority, weight, upstream: &Upstream| (priority, weight, upstream.address.port(), "host.test");
    dns.set_addresses("host.test", &ips(&[1]));
    let records = [service(1, 3, &heavy), service(1, 1, &light), service(2, 9, &spare)];
    dns.set_services("_http._tcp.api.test", &records);
    let gateway = gateway(&dns, "srv+http://_http._tcp.api.test", "health_check: {path: /healthz, interval: 200ms}")?;
    let mut client = gateway.client()?;
    let counts = served(&mut client, 40)?;
    let expected = [(heavy.address.to_string(), 30), (light.address.to_string(), 10)];
    assert_eq!(counts, BTreeMap::from(expected));
    dns.set_services("_http._tcp.api.test", &records[2..]);
    wait_until("the other service is used", || {
        client.get("/", &[]).is_ok_and(|response| response.status == 200) && spare.requests() > 0
    });
    let counts = served(&mut client, 5)?;
    assert_eq!(counts, BTreeMap::from([(spare.address.to_string(), 5)]));
    wait_until("the new address is checked", || {
        listed(&gateway).is_ok_and(|list| list.len() == 1 && list[0]["healthy"] == true)
    });
    Ok(())
}

#[test]
fn a_unix_socket_is_an_endpoint() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || -> Result<()> {
                let mut lines = BufReader::new(stream.try_clone()?).lines();
                let mut out = stream;
                let mut head = vec![];
                while let Some(line) = lines.next().transpose()? {
                    if !line.is_empty() {
                        head.push(line);
                        continue;
                    }
                    let text = head.join("|");
                    head.clear();
                    write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())?;
                }
                Ok(())
            });
        }
    });
    let check = "health_check: {path: /healthz, interval: 100ms}";
    let gateway = Setup::new(&format!(
        "upstreams: {{u: {{endpoints: [\"unix:{}\"], {check}}}}}\nroutes: [{{upstream: u}}]",
        path.display()
    ))?
    .start()?;
    let mut client = gateway.client()?;
    for _ in 0..3 {
        let response = client.get("/a?b=1", &["x-a: 1"])?;
        assert!(response.text().starts_with("GET /a?b=1 HTTP/1.1|host: test"), "{}", response.text());
    }
    wait_until("the socket is checked", || {
        listed(&gateway).is_ok_and(|list| list.first().is_some_and(|one| one["healthy"] == true))
    });
    assert_eq!(listed(&gateway)?.first().context("no endpoint")?["endpoint"], format!("unix:{}", path.display()));
    std::fs::remove_file(&path)?;
    wait_until("a socket that is gone is unhealthy", || {
        listed(&gateway).is_ok_and(|list| list.first().is_some_and(|one| one["healthy"] == false))
    });
    Ok(())
}
