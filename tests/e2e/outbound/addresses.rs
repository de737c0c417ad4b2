//! Direct calls go to public addresses only, in whatever way an address is written or found.

use std::net::{IpAddr, TcpListener};

use anyhow::Result;
use harness::{Dns, Setup, wait_until};

/// Addresses that no direct call may reach.
const FORBIDDEN: [&str; 14] = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
    "168.63.129.16",
    "::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "fd00:ec2::254",
    "fe80::1",
];

#[test]
fn names_with_forbidden_addresses_are_refused_at_the_connection() -> Result<()> {
    let (dns, victim) = (Dns::start()?, TcpListener::bind("127.0.0.1:0")?);
    victim.set_nonblocking(true)?;
    let port = victim.local_addr()?.port();
    let names: Vec<String> = (0..FORBIDDEN.len()).map(|number| format!("n{number}.test")).collect();
    let origins: Vec<String> = names
        .iter()
        .chain([&"changes.test".to_owned()])
        .map(|name| format!("\"http://{name}:{port}\": {{}}"))
        .collect();
    for (name, address) in names.iter().zip(FORBIDDEN) {
        dns.set_addresses(name, &[address.parse()?]);
    }
    let yaml = format!(
        "dns: {{servers: [\"{}\"]}}\nupstreams: {{echo: {{builtin: echo}}}}\n\
         filters:\n  f:\n    source: f.wasm\n    capabilities: [http, crypto]\n\
         \x20   http: {{origins: {{{}}}, wait: 10s}}\n\
         routes: [{{filters: [f], upstream: echo}}]",
        dns.address,
        origins.join(", ")
    );
    let gateway = Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")?.start()?;
    for (name, address) in names.iter().zip(FORBIDDEN) {
        let refused = super::call(&gateway, "", &format!("http://{name}:{port}/"))?;
        assert!(refused.starts_with("denied: ") && refused.contains("not public"), "{address}: {refused}");
    }
    // The answers of a hostile DNS server change between the look-up and the connection, and over
    // time. Each connection is checked by itself.
    let url = format!("http://changes.test:{port}/");
    for address in ["10.1.2.3", "127.0.0.1", "::1"] {
        dns.set_addresses("changes.test", &[address.parse::<IpAddr>()?, "169.254.169.254".parse()?]);
        wait_until("the call is denied", || {
            super::call(&gateway, "", &url).is_ok_and(|text| text.starts_with("denied: "))
        });
    }
    assert!(victim.accept().is_err(), "nobody connected");
    Ok(())
}

#[test]
fn spellings_of_an_address_are_no_way_around_the_grant() -> Result<()> {
    let upstream = harness::Upstream::start()?;
    let gateway = super::start(&upstream, "", "")?;
    let port = upstream.address.port();
    let before = upstream.requests();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.0.1.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "svc@127.0.0.1",
        "svc:80@127.0.0.1",
        "127.0.0.1#@svc",
        "127.0.0.1\\@svc",
        "svc.",
        "%31%32%37.0.0.1",
        "①②⑦.0.0.1",
    ] {
        let text = super::call(&gateway, "", &format!("http://{host}:{port}/"))?;
        assert!(text.starts_with("denied: ") || text.starts_with("invalid: "), "{host}: {text}");
    }
    for url in
        ["file:///etc/passwd", "ftp://svc/", "//svc/", "http:svc", "http:///", "https://svc/", "http://svc:8080/"]
    {
        let text = super::call(&gateway, "", url)?;
        assert!(text.starts_with("denied: ") || text.starts_with("invalid: "), "{url}: {text}");
    }
    for (field, value) in [("host", "x"), ("content-length", "3"), ("transfer-encoding", "chunked"), ("via", "x")] {
        let text = super::call(&gateway, &format!("field={field}&value={value}"), "http://svc/")?;
        assert!(text.starts_with("invalid: "), "{field}: {text}");
    }
    assert_eq!(upstream.requests(), before);
    Ok(())
}

#[test]
fn a_configuration_names_public_origins_only() -> Result<()> {
    for (origin, expected) in [
        ("http://127.0.0.1:80", "is not a public address"),
        ("https://localhost", "is not a public address"),
        ("https://[::1]", "is not a public address"),
        ("https://2130706433", "is not an IP address"),
        ("https://0x7f.1", "is not an IP address"),
        ("https://user@example.com", "user name"),
        ("https://example.com/path", "an origin has no path"),
        ("ftp://example.com", "http:// or https://"),
    ] {
        let yaml = format!(
            "upstreams: {{echo: {{builtin: echo}}}}\n\
             filters: {{f: {{source: f.wasm, capabilities: [http], http: {{origins: {{\"{origin}\": {{}}}}}}}}}}\n\
             routes: [{{filters: [f], upstream: echo}}]"
        );
        let (code, text) = Setup::new(&yaml)?.check()?;
        assert!(code != Some(0) && text.contains(expected), "{origin}: {text}");
    }
    Ok(())
}
