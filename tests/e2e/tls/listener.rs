//! A TLS listener: certificate selection, versions, ALPN, resumption, client certificates and
//! handshakes that do not finish.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::tls::{Authority, TlsClient};
use harness::{Client, Setup, wait_until};
use rustix::process::Signal;
use tokio_rustls::rustls::{ProtocolVersion, version};

use super::{ECHO, curl, renew, start, status_of, tls_setup};

#[test]
fn sni_selects_the_certificate() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["default.test"], &["a.test", "x.b.test"], &["*.b.test"]], "")?;
    for (name, expected) in [
        ("a.test", "a.test"),
        ("A.TEST", "a.test"),
        ("c.b.test", "*.b.test"),
        ("x.b.test", "a.test"),
        ("b.test", "default.test"),
        ("d.c.b.test", "default.test"),
        ("unknown.test", "default.test"),
        ("", "default.test"),
    ] {
        // Another TLS implementation, which does not verify the certificate.
        let address = gateway.address.to_string();
        let server_name = if name.is_empty() { vec!["-noservername"] } else { vec!["-servername", name] };
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address])
            .args(server_name)
            .stdin(Stdio::null())
            .output()?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let subject = output.lines().find_map(|line| line.strip_prefix("subject=CN = "));
        assert_eq!(subject, Some(expected), "{name}: {output}");
    }
    Ok(())
}

#[test]
fn the_clients_algorithms_select_between_certificates_of_one_name() -> Result<()> {
    let ca = Authority::new("ca")?;
    let setup = Setup::new(ECHO)?;
    let folder = setup.write()?.parent().map(std::path::Path::to_owned).unwrap_or_default();
    let created = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "rsa.key", "-out", "rsa.pem"])
        .args(["-subj", "/CN=rsa", "-addext", "subjectAltName=DNS:a.test"])
        .current_dir(&folder)
        .output()?;
    ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let (ecdsa, same) = (ca.issue(&["a.test"])?, ca.issue(&["a.test"])?);
    let setup = setup
        .with("ecdsa.pem", ecdsa.certificate)?
        .with("ecdsa.key", ecdsa.key)?
        .with("same.pem", same.certificate)?
        .with("same.key", same.key)?
        .listener(
            "tls: {certificates: [{certificate: rsa.pem, key: rsa.key}, {certificate: ecdsa.pem, key: ecdsa.key}, \
             {certificate: same.pem, key: same.key}]}, hsts: {max_age: 1h}",
        );
    let (_, checked) = setup.check()?;
    assert_eq!(checked.matches("no client gets").count(), 1, "{checked}");
    assert!(checked.contains("no client gets certificates[2] (a.test)"), "{checked}");
    let gateway = setup.start()?;
    for (version, algorithms, expected) in [
        ("-tls1_3", "ecdsa_secp256r1_sha256", "a.test"),
        ("-tls1_3", "rsa_pss_rsae_sha256", "rsa"),
        ("-tls1_3", "rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256", "a.test"),
        ("-tls1_2", "RSA+SHA256", "rsa"),
        ("-tls1_2", "ECDSA+SHA256", "a.test"),
    ] {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &gateway.address.to_string(), "-servername", "a.test", version])
            .args(["-sigalgs", algorithms])
            .stdin(Stdio::null())
            .output()?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let subject = output.lines().find_map(|line| line.strip_prefix("subject=CN = "));
        assert_eq!(subject, Some(expected), "{version} {algorithms}: {output}");
    }
    let output = curl(&ca, &gateway, "a.test", &["-i"])?;
    assert!(output.contains("strict-transport-security: max-age=3600"), "{output}");
    Ok(())
}

#[test]
fn an_ip_address_of_the_certificate_is_a_host() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test", "127.0.0.1"]], "")?;
    for (host, status) in [("127.0.0.1", 200), ("a.test", 200), ("127.0.0.2", 421)] {
        let (mut client, _) = TlsClient::new(&ca)?.connect(gateway.address, "a.test")?;
        client.write(format!("GET / HTTP/1.1\r\nhost: {host}:{}\r\n\r\n", gateway.address.port()).as_bytes())?;
        assert_eq!(client.read(false)?.status, status, "{host}");
    }
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &gateway.address.to_string(), "-servername", "127.0.0.1"])
        .stdin(Stdio::null())
        .output()?;
    assert!(String::from_utf8_lossy(&output.stdout).contains("subject=CN = a.test"));
    assert!(gateway.logged("SNI").is_empty(), "an IP address as a server name needs nobody's attention");
    Ok(())
}

#[test]
fn alpn_selects_the_protocol() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    for (option, version) in [("--http2", '2'), ("--http1.1", '1')] {
        let output = curl(&ca, &gateway, "a.test", &[option, "-w", "%{http_version}", "-d", "abc"])?;
        assert!(output.contains("\"body\": \"abc\""), "{output}");
        assert!(output.trim_end_matches(".1").ends_with(version), "{output}");
    }
    let alpn = |offered: &[&str]| {
        let (mut client, handshake) = TlsClient::new(&ca)?.alpn(offered).connect(gateway.address, "a.test")?;
        if handshake.alpn.as_deref() != Some("h2") {
            ensure!(client.get("/", &["x-a: 1"])?.echoed("x-a").as_deref() == Some("1"));
        }
        Ok(handshake.alpn)
    };
    assert_eq!(alpn(&["http/1.1", "h2"])?.as_deref(), Some("h2"), "the gateway's order of preference decides");
    assert_eq!(alpn(&["http/1.1"])?.as_deref(), Some("http/1.1"));
    assert_eq!(alpn(&[])?, None);
    assert!(alpn(&["h3"]).is_err(), "no common protocol fails the handshake (RFC 7301, section 3.2)");
    let only_http1 = start(&ca, &[&["a.test"]], ", protocols: [http/1.1]")?;
    let (_, handshake) = TlsClient::new(&ca)?.alpn(&["h2", "http/1.1"]).connect(only_http1.address, "a.test")?;
    assert_eq!(handshake.alpn.as_deref(), Some("http/1.1"));
    Ok(())
}

#[test]
fn tls_versions_below_the_minimum_are_refused() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    let strict = start(&ca, &[&["a.test"]], ", min_version: 1.3")?;
    for (version, expected) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let client = TlsClient::with_version(&ca, version)?;
        let (mut http, handshake) = client.connect(gateway.address, "a.test")?;
        assert_eq!((handshake.version, http.get("/", &[])?.status), (Some(expected), 200));
        assert_eq!(client.connect(strict.address, "a.test").is_ok(), expected == ProtocolVersion::TLSv1_3);
    }
    // A TLS 1.1 ClientHello with two cipher suites of that version.
    let mut hello = vec![1, 0, 0, 43, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8];
    record.extend(&hello);
    let mut old = TcpStream::connect(gateway.address)?;
    old.set_read_timeout(Some(Duration::from_secs(10)))?;
    old.write_all(&record)?;
    let mut received = vec![];
    old.read_to_end(&mut received)?;
    assert_eq!(
        (received.len(), received.first(), received.get(5)),
        (7, Some(&21), Some(&2)),
        "the gateway sends a fatal alert and nothing else"
    );
    // Plain HTTP on a TLS listener.
    let mut plain = Client::connect(gateway.address)?;
    assert_eq!(plain.get("/", &[])?.status, 400);
    // The gateway closes a connection before it counts the failure.
    let failed = || gateway.metric("witgate_tls_handshakes_total{listener=\"main\",result=\"failed\"}");
    wait_until("both failures are counted", || failed().is_ok_and(|count| count == 2.0));
    Ok(())
}

#[test]
fn sessions_are_resumed_by_any_thread_and_across_a_renewal() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    for version in [&version::TLS12, &version::TLS13] {
        let client = TlsClient::with_version(&ca, version)?;
        for round in 0..6 {
            let (mut http, handshake) = client.connect(gateway.address, "a.test")?;
            // TLS 1.3 tickets arrive with the first response.
            assert_eq!((http.get("/", &[])?.status, handshake.resumed), (200, round > 0), "{version:?}, round {round}");
            if round == 3 {
                let before = gateway.logged("a certificate is in service").len();
                renew(&gateway, 0, &ca.issue(&["a.test"])?)?;
                gateway.wait_logged("a certificate is in service", before + 1);
            }
        }
    }
    assert_eq!(gateway.metric("witgate_tls_handshakes_total{listener=\"main\",result=\"resumed\"}")?, 10.0);
    Ok(())
}

/// The fixture `client-info` copies what it learns about the client into request headers.
const CLIENT_INFO: &str =
    "filters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";

#[test]
fn filters_and_the_log_see_a_verified_client() -> Result<()> {
    let (ca, clients, strangers) = (Authority::new("ca")?, Authority::new("clients")?, Authority::new("strangers")?);
    let alice = clients.issue(&["alice.test", "10.1.2.3"])?;
    let mallory = strangers.issue(&["alice.test"])?;
    for (mode, optional) in [("required", false), ("optional", true)] {
        let setup = Setup::new(CLIENT_INFO)?
            .access_log("")
            .with_guest("f.wasm", "tests/rust/client-info")?
            .with("clients.pem", clients.pem())?;
        let more = format!(", client_auth: {{ca: clients.pem, mode: {mode}}}");
        let gateway = tls_setup(&ca, &[&["a.test"]], &more, setup)?.start()?;
        for version in [&version::TLS12, &version::TLS13] {
            let client = TlsClient::with(&ca, &[version], Some(&alice))?.alpn(&["http/1.1"]);
            for round in 0..2 {
                let (mut http, handshake) = client.connect(gateway.address, "a.test")?;
                let response = http.get("/", &[])?;
                assert_eq!(handshake.resumed, round == 1, "a resumed session keeps the client's certificate");
                let field = |name: &str| response.echoed(name).unwrap_or_default();
                assert_eq!((field("x-subject"), field("x-sha256")), ("CN=alice.test".into(), alice.sha256.clone()));
                assert_eq!((field("x-san"), field("x-sni")), ("dns:alice.test".into(), "a.test".into()));
                assert_eq!(field("x-alpn"), "http/1.1");
            }
        }
        let lines = gateway.wait_accessed("\"status\":200", 4);
        for (line, version) in lines.iter().zip(["TLSv1.2", "TLSv1.2", "TLSv1.3", "TLSv1.3"]) {
            for part in [&alice.sha256, "\"sni\":\"a.test\"", &format!("\"tls\":\"{version}\"")] {
                assert!(line.contains(part), "{part} is not in {line}");
            }
        }
        let anonymous = TlsClient::new(&ca)?;
        assert_eq!(status_of(&anonymous, &gateway).is_ok(), optional, "{mode}");
        assert!(
            status_of(&TlsClient::with_certificate(&ca, &mallory)?, &gateway).is_err(),
            "{mode}: an unknown authority signed the certificate"
        );
    }
    Ok(())
}

#[test]
fn a_host_other_than_the_server_name_gets_421() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test", "also.test", "127.0.0.1"], &["b.test"]], "")?;
    for protocol in ["--http1.1", "--http2"] {
        for (host, status) in
            [("a.test", "200"), ("A.test:99", "200"), ("also.test", "200"), ("b.test", "421"), ("c.test", "421")]
        {
            let output = curl(
                &ca,
                &gateway,
                "a.test",
                &[protocol, "-H", &format!("host: {host}"), "-o", "/dev/null", "-w", "%{http_code}"],
            )?;
            assert_eq!(output, status, "{protocol} {host}");
        }
    }
    let (mut without_name, _) = TlsClient::new(&ca)?.connect(gateway.address, "127.0.0.1")?;
    assert_eq!(without_name.get("/", &[])?.status, 200, "a client that sent no server name");
    Ok(())
}

#[test]
fn a_client_without_a_handshake_delays_no_one_and_is_disconnected() -> Result<()> {
    let ca = Authority::new("ca")?;
    let setup = Setup::new(&format!("timeouts: {{request_head: 400ms}}\n{ECHO}"))?.workers(1);
    let mut gateway = tls_setup(&ca, &[&["a.test"]], "", setup)?.start()?;
    let mut silent: Vec<Client> = (0..50).map(|_| Client::connect(gateway.address)).collect::<Result<_>>()?;
    let mut half = Client::connect(gateway.address)?;
    half.write(&[22, 3, 1, 0, 200, 1])?;
    assert_eq!(status_of(&TlsClient::new(&ca)?, &gateway)?, 200);
    for client in silent.iter_mut().chain([&mut half]) {
        assert!(client.is_closed());
    }
    wait_until("the timeouts are counted", || {
        gateway
            .metric("witgate_tls_handshakes_total{listener=\"main\",result=\"timeout\"}")
            .is_ok_and(|count| count == 51.0)
    });
    let slow = start(&ca, &[&["a.test"]], "")?;
    let _waiting = Client::connect(slow.address)?;
    wait_until("the connection is accepted", || slow.metric("witgate_connections").is_ok_and(|count| count == 1.0));
    gateway.signal(Signal::TERM)?;
    assert_eq!(gateway.wait(Duration::from_secs(3))?.code(), Some(0));
    let mut slow = slow;
    slow.signal(Signal::TERM)?;
    assert_eq!(slow.wait(Duration::from_secs(3))?.code(), Some(0), "a drain does not wait for a handshake");
    Ok(())
}

#[test]
fn http2_over_tls_serves_many_requests_on_one_connection() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    let config = TlsClient::new(&ca)?.alpn(&["h2"]).config();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(gateway.address).await?;
        let stream = tokio_rustls::TlsConnector::from(config).connect("a.test".try_into()?, tcp).await?;
        let (mut client, connection) = h2::client::handshake(stream).await?;
        let driver = tokio::spawn(connection);
        let mut statuses = vec![];
        for host in ["a.test", "a.test", "b.test"] {
            let request = http::Request::get(format!("https://{host}/")).body(())?;
            let (response, _) = client.send_request(request, true)?;
            statuses.push(response.await?.status().as_u16());
        }
        assert_eq!(statuses, [200, 200, 421]);
        driver.abort();
        anyhow::Ok(())
    })?;
    assert_eq!(gateway.metric("witgate_tls_handshakes_total{listener=\"main\",result=\"full\"}")?, 1.0);
    Ok(())
}

#[test]
fn a_request_without_tls_is_told_so() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    let mut stream = TcpStream::connect(gateway.address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    ensure!(head.starts_with("HTTP/1.1 400 ") && body.contains("TLS only"), "{text}");
    ensure!(head.contains(&format!("content-length: {}\r\n", body.len())), "{text}");
    Ok(())
}
