//! Direct calls go to public addresses only, in whatever way an address is written or found.

use std::net::{IpAddr, TcpListener};

use anyhow::Result;
use harness::tls::Authority;
use harness::{Dns, Setup, wait_until};

/// Addresses that no direct call may reach.
const FORBIDDEN: [&str; 30] = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.168.0.1",
    "168.63.129.16",
    "198.18.0.1",
    "198.19.255.255",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2001::1",
    "2002:7f00:1::",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
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
        "dns: {{servers: [\"{0}\"]}}\nupstreams:\n  echo: {{builtin: echo}}\n\
         \x20 app: {{component: {{source: app.wasm, http: {{origins: {{{1}}}, wait: 10s}}}}}}\n\
         filters:\n  f:\n    source: f.wasm\n    capabilities: [http, crypto]\n\
         \x20   http: {{origins: {{{1}}}, wait: 10s}}\n\
         routes: [{{match: {{path: /fetch}}, upstream: app}}, {{filters: [f], upstream: echo}}]",
        dns.address,
        origins.join(", ")
    );
    let setup = Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")?;
    let gateway = setup.with_http_component("app.wasm", "probe")?.start()?;
    for (name, address) in names.iter().zip(FORBIDDEN) {
        let refused = super::call(&gateway, "", &format!("http://{name}:{port}/"))?;
        assert!(refused.starts_with("denied: ") && refused.contains("not public"), "{address}: {refused}");
        let refused = gateway.get(&format!("/fetch?{name}:{port}"), &[])?.text();
        assert_eq!(refused, "ErrorCode::HttpRequestDenied", "a component calls {address}");
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
        "127.0.1",
        "0",
        "0x7f.1",
        "0x7F000001",
        "0300.0250.0.1",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "localhost.",
        "[::]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "[fd00:ec2::254]",
        "169.254.169.254",
        "169.254.169.254.",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
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
        ("https://169.254.169.254", "is not a public address"),
        ("https://[::ffff:127.0.0.1]", "is not a public address"),
        ("https://[64:ff9b::7f00:1]", "is not a public address"),
        ("https://[2002:7f00:1::]", "is not a public address"),
        ("https://[fd00:ec2::254]", "is not a public address"),
        ("https://[fe80::1%25eth0]", "is not an origin"),
        ("https://127.0.0.1.", "is not an origin"),
        ("https://198.18.0.1", "is not a public address"),
        ("https://255.255.255.255", "is not a public address"),
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
    for (entry, expected) in [
        ("\"http://10.0.0.1\": {allow: [10.0.0.0/30]}", None),
        ("\"http://localhost\": {allow: [127.0.0.1]}", None),
        ("\"http://10.0.0.4\": {allow: [10.0.0.0/30]}", Some("is not a public address")),
        ("\"http://[::ffff:10.0.0.1]\": {allow: [10.0.0.0/8]}", Some("is not a public address")),
        ("\"http://e\": {upstream: echo, allow: [10.0.0.0/8]}", Some("has no effect with upstream")),
        ("\"http://e\": {allow: [10.0.0.0/33]}", Some("allow")),
    ] {
        let yaml = format!(
            "upstreams: {{echo: {{builtin: echo}}}}\n\
             filters: {{f: {{source: f.wasm, capabilities: [http, crypto], http: {{origins: {{{entry}}}}}}}}}\n\
             routes: [{{filters: [f], upstream: echo}}]"
        );
        let (code, text) = Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")?.check()?;
        assert_eq!(code == Some(0), expected.is_none(), "{entry}: {text}");
        assert!(
            text.contains(expected.unwrap_or("directly, also at addresses that are not public (1")),
            "{entry}: {text}"
        );
    }
    Ok(())
}

/// A gateway with TLS stands for the service, so that the call meets a real handshake.
#[test]
fn a_direct_call_reaches_an_allowed_address_and_verifies_its_certificate() -> Result<()> {
    let (authority, dns) = (Authority::new("direct")?, Dns::start()?);
    let issued = authority.issue(&["svc.test"])?;
    let yaml = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";
    let service = Setup::new(yaml)?
        .listener("tls: {certificates: [{certificate: cert.pem, key: key.pem}]}")
        .with("cert.pem", &issued.certificate)?
        .with("key.pem", &issued.key)?
        .start()?;
    let port = service.address.port();
    for name in ["svc.test", "other.test", "elsewhere.test"] {
        dns.set_addresses(name, &["127.0.0.1".parse()?]);
    }
    let yaml = format!(
        "dns: {{servers: [\"{}\"]}}\nupstreams: {{echo: {{builtin: echo}}}}\n\
         filters:\n  f:\n    source: f.wasm\n    capabilities: [http, crypto]\n    http:\n      wait: 10s\n      origins:\n\
         \x20       \"https://svc.test:{port}\": {{allow: [127.0.0.0/8]}}\n\
         \x20       \"https://other.test:{port}\": {{allow: [127.0.0.1]}}\n\
         \x20       \"https://elsewhere.test:{port}\": {{allow: [127.0.0.2]}}\n\
         routes: [{{filters: [f], upstream: echo}}]",
        dns.address
    );
    let setup = Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")?.with("ca.pem", authority.pem())?;
    let trusted = setup.path("ca.pem");
    let gateway = setup.variable("SSL_CERT_FILE", &trusted).start()?;
    let answer = super::call(&gateway, "", &format!("https://svc.test:{port}/any"))?;
    assert!(answer.starts_with("200 ") && answer.contains(&format!("svc.test:{port}")), "{answer}");
    let refused = super::call(&gateway, "", &format!("https://other.test:{port}/"))?;
    assert!(refused.starts_with("unavailable: ") && refused.contains("upstream-certificate"), "{refused}");
    let refused = super::call(&gateway, "", &format!("https://elsewhere.test:{port}/"))?;
    assert!(refused.starts_with("denied: "), "{refused}");
    let shown = gateway.admin("/filters")?.json()[0]["http"].to_string();
    assert!(shown.contains(&format!("https://svc.test:{port} (127.0.0.0/8)")), "{shown}");
    Ok(())
}
