//! TLS on both sides: which certificate, which version and protocol, who the client is, and certificates that change under load.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::tls::{Authority, Issued, TlsClient};
use harness::wat::component;
use harness::{Client, Gateway, Setup, Upstream, wait_until, wait_up_to};
use rustix::process::Signal;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ProtocolVersion, ServerConfig, ServerConnection, StreamOwned, version};

const ECHO: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{name: all, upstream: echo}]";

/// A gateway with a pair for each list of names; its files are `0.pem`, `0.key`, …
fn start(authority: &Authority, names: &[&[&str]], more: &str) -> Result<Gateway> {
    serving(authority, names, more, Setup::new(ECHO)?)?.start()
}

fn serving(authority: &Authority, names: &[&[&str]], more: &str, mut setup: Setup) -> Result<Setup> {
    let mut pairs = String::new();
    for (index, names) in names.iter().enumerate() {
        let issued = authority.issue(names)?;
        setup = setup.with(&format!("{index}.pem"), issued.certificate)?.with(&format!("{index}.key"), issued.key)?;
        pairs.push_str(&format!("{{certificate: {index}.pem, key: {index}.key}}, "));
    }
    Ok(setup.listener(&format!("tls: {{certificates: [{pairs}]{more}}}")))
}

/// Puts a new pair in place, one file after the other, as tools do.
fn renew(gateway: &Gateway, index: usize, issued: &Issued) -> Result<()> {
    gateway.replace(&format!("{index}.pem"), &issued.certificate)?;
    gateway.replace(&format!("{index}.key"), &issued.key)
}

fn failures(gateway: &Gateway, reason: &str) -> f64 {
    let line = format!("witgate_certificate_load_failures_total{{listener=\"main\",reason=\"{reason}\"}}");
    gateway.metric(&line).unwrap_or_default()
}

fn curl(authority: &Authority, gateway: &Gateway, host: &str, more: &[&str]) -> Result<String> {
    let ca = gateway.path("curl-ca.pem");
    std::fs::write(&ca, authority.pem())?;
    let port = gateway.address.port();
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "10", "--resolve", &format!("{host}:{port}:127.0.0.1"), "--cacert"])
        .arg(ca)
        .args(more)
        .arg(format!("https://{host}:{port}/"))
        .output()?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_name_chooses_the_certificate() -> Result<()> {
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
        // Another implementation of TLS, which looks at the certificate and does not mind.
        let address = gateway.address.to_string();
        let asked = if name.is_empty() { vec!["-noservername"] } else { vec!["-servername", name] };
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address])
            .args(asked)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let subject = said.lines().find_map(|line| line.strip_prefix("subject=CN = "));
        assert_eq!(subject, Some(expected), "{name}: {said}");
    }
    Ok(())
}

#[test]
fn alpn_chooses_the_protocol() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    for (option, version) in [("--http2", '2'), ("--http1.1", '1')] {
        let said = curl(&ca, &gateway, "a.test", &[option, "-w", "%{http_version}", "-d", "abc"])?;
        assert!(said.contains("\"body\": \"abc\""), "{said}");
        assert!(said.trim_end_matches(".1").ends_with(version), "{said}");
    }
    let alpn = |offered: &[&str]| {
        let (mut client, handshake) = TlsClient::new(&ca)?.alpn(offered).connect(gateway.address, "a.test")?;
        if handshake.alpn.as_deref() != Some("h2") {
            ensure!(client.get("/", &["x-a: 1"])?.echoed("x-a").as_deref() == Some("1"));
        }
        Ok(handshake.alpn)
    };
    assert_eq!(alpn(&["http/1.1", "h2"])?.as_deref(), Some("h2"), "the gateway's order counts");
    assert_eq!(alpn(&["http/1.1"])?.as_deref(), Some("http/1.1"));
    assert_eq!(alpn(&[])?, None);
    assert!(alpn(&["h3"]).is_err(), "nothing in common (RFC 7301, section 3.2)");
    let only_http1 = start(&ca, &[&["a.test"]], ", protocols: [http/1.1]")?;
    let (_, handshake) = TlsClient::new(&ca)?.alpn(&["h2", "http/1.1"]).connect(only_http1.address, "a.test")?;
    assert_eq!(handshake.alpn.as_deref(), Some("http/1.1"));
    Ok(())
}

#[test]
fn old_versions_are_refused() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    let strict = start(&ca, &[&["a.test"]], ", min_version: 1.3")?;
    for (own, expected) in [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)] {
        let client = TlsClient::only(&ca, own)?;
        let (mut http, handshake) = client.connect(gateway.address, "a.test")?;
        assert_eq!((handshake.version, http.get("/", &[])?.status), (Some(expected), 200));
        assert_eq!(client.connect(strict.address, "a.test").is_ok(), expected == ProtocolVersion::TLSv1_3);
    }
    // A client hello of TLS 1.1 with two suites that it could have used.
    let mut hello = vec![1, 0, 0, 43, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8];
    record.extend(&hello);
    let mut old = TcpStream::connect(gateway.address)?;
    old.set_read_timeout(Some(Duration::from_secs(10)))?;
    old.write_all(&record)?;
    let mut answer = vec![];
    old.read_to_end(&mut answer)?;
    assert_eq!(
        (answer.len(), answer.first(), answer.get(5)),
        (7, Some(&21), Some(&2)),
        "a fatal alert and nothing else"
    );
    // Plain text on a TLS listener.
    let mut plain = Client::connect(gateway.address)?;
    assert!(plain.get("/", &[]).is_err());
    // A connection is closed before its failure is counted.
    let failed = || gateway.metric("witgate_tls_handshakes_total{listener=\"main\",result=\"failed\"}");
    wait_until("both are counted", || failed().is_ok_and(|count| count == 2.0));
    Ok(())
}

#[test]
fn sessions_are_resumed_by_any_thread_and_across_a_renewal() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    for own in [&version::TLS12, &version::TLS13] {
        let client = TlsClient::only(&ca, own)?;
        for round in 0..6 {
            let (mut http, handshake) = client.connect(gateway.address, "a.test")?;
            // The ticket comes with the first bytes.
            assert_eq!((http.get("/", &[])?.status, handshake.resumed), (200, round > 0), "{own:?} {round}");
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

/// A filter that passes on what it is told of the peer.
fn telling() -> Result<Vec<u8>> {
    // `client-info` lies at 1024, so whether `tls` is there at 1036, its version at 1040, whether there is a name at 1048, ALPN at 1060, a peer at 1072.
    let set = |at: usize, length: usize, value: &str| {
        format!(
            "(call $set (i32.const {at}) (i32.const {length}) (i32.load (i32.const {value})) (i32.load offset=4 (i32.const {value})))"
        )
    };
    let san = "(call $set (i32.const 3092) (i32.const 5) (i32.load (i32.load (i32.const 1084))) (i32.load offset=4 (i32.load (i32.const 1084))))";
    let wat = format!(
        "(module
           (import \"witgate:gateway/exchange@0.1.0\" \"client\" (func $client (param i32)))
           (import \"witgate:gateway/request-edit@0.1.0\" \"set-header\" (func $set (param i32 i32 i32 i32)))
           (memory (export \"memory\") 3) (global $next (mut i32) (i32.const 8192))
           (data (i32.const 3072) \"x-subject\") (data (i32.const 3084) \"x-sha256\") (data (i32.const 3092) \"x-san\")
           (data (i32.const 3100) \"x-version\") (data (i32.const 3112) \"x-sni\") (data (i32.const 3120) \"x-alpn\")
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
             (global.get $next)
             (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 7)) (i32.const -8))))
           (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32)
             (call $client (i32.const 1024))
             (if (i32.load8_u (i32.const 1036)) (then {version}
               (if (i32.load8_u (i32.const 1048)) (then {sni}))
               (if (i32.load8_u (i32.const 1060)) (then {alpn}))
               (if (i32.load8_u (i32.const 1072)) (then {subject} {sha256} {san}))))
             (i32.const 0)))",
        version = set(3100, 9, "1040"),
        sni = set(3112, 5, "1052"),
        alpn = set(3120, 6, "1064"),
        subject = set(3072, 9, "1076"),
        sha256 = set(3084, 8, "1092"),
    );
    component("include request-filter;", &wat)
}

const TELLING: &str =
    "filters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";

#[test]
fn a_verified_client_reaches_filters_and_the_log() -> Result<()> {
    let (ca, clients, strangers) = (Authority::new("ca")?, Authority::new("clients")?, Authority::new("strangers")?);
    let alice = clients.issue(&["alice.test", "10.1.2.3"])?;
    let mallory = strangers.issue(&["alice.test"])?;
    for (mode, optional) in [("required", false), ("optional", true)] {
        let setup = Setup::new(TELLING)?
            .level("info,access=debug")
            .with("f.wasm", telling()?)?
            .with("clients.pem", clients.pem())?;
        let more = format!(", client_auth: {{ca: clients.pem, mode: {mode}}}");
        let gateway = serving(&ca, &[&["a.test"]], &more, setup)?.start()?;
        for own in [&version::TLS12, &version::TLS13] {
            let client = TlsClient::with(&ca, &[own], Some(&alice))?.alpn(&["http/1.1"]);
            for round in 0..2 {
                let (mut http, handshake) = client.connect(gateway.address, "a.test")?;
                let response = http.get("/", &[])?;
                assert_eq!(handshake.resumed, round == 1, "a resumed session knows its client");
                let field = |name: &str| response.echoed(name).unwrap_or_default();
                assert_eq!((field("x-subject"), field("x-sha256")), ("CN=alice.test".into(), alice.sha256.clone()));
                assert_eq!((field("x-san"), field("x-sni")), ("dns:alice.test".into(), "a.test".into()));
                assert_eq!(field("x-alpn"), "http/1.1");
            }
        }
        let lines = gateway.wait_logged("\"status\":200", 4);
        for (line, version) in lines.iter().zip(["TLSv1.2", "TLSv1.2", "TLSv1.3", "TLSv1.3"]) {
            for part in [&alice.sha256, "\"sni\":\"a.test\"", &format!("\"tls_version\":\"{version}\"")] {
                assert!(line.contains(part), "{part} not in {line}");
            }
        }
        let anonymous = TlsClient::new(&ca)?;
        assert_eq!(greeted(&anonymous, &gateway).is_ok(), optional, "{mode}");
        assert!(greeted(&TlsClient::showing(&ca, &mallory)?, &gateway).is_err(), "{mode}: signed by somebody else");
    }
    Ok(())
}

/// The status of a request for `a.test`. With TLS 1.3 a client learns only then that its certificate was refused.
fn greeted(client: &TlsClient, gateway: &Gateway) -> Result<u16> {
    let (mut http, _) = client.connect(gateway.address, "a.test")?;
    Ok(http.get("/", &[])?.status)
}

#[test]
fn who_is_no_longer_trusted_does_not_come_back() -> Result<()> {
    let (ca, old, new) = (Authority::new("ca")?, Authority::new("old")?, Authority::new("new")?);
    let setup = Setup::new(ECHO)?.with("clients.pem", old.pem())?;
    let gateway = serving(&ca, &[&["a.test"]], ", client_auth: {ca: clients.pem}", setup)?.start()?;
    let (alice, bob) =
        (TlsClient::showing(&ca, &old.issue(&["alice"])?)?, TlsClient::showing(&ca, &new.issue(&["bob"])?)?);
    assert_eq!((greeted(&alice, &gateway)?, greeted(&bob, &gateway).is_ok()), (200, false));
    gateway.replace("clients.pem", &new.pem()[..100])?;
    wait_until("half an authority is refused", || failures(&gateway, "garbled") == 1.0);
    assert_eq!((greeted(&alice, &gateway)?, greeted(&bob, &gateway).is_ok()), (200, false));
    gateway.replace("clients.pem", new.pem())?;
    wait_until("the new authority", || greeted(&bob, &gateway).is_ok_and(|status| status == 200));
    assert!(greeted(&alice, &gateway).is_err(), "neither by certificate nor by ticket");
    Ok(())
}

#[test]
fn another_host_than_the_name_is_misdirected() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test", "also.test", "127.0.0.1"], &["b.test"]], "")?;
    for protocol in ["--http1.1", "--http2"] {
        for (host, status) in
            [("a.test", "200"), ("A.test:99", "200"), ("also.test", "200"), ("b.test", "421"), ("c.test", "421")]
        {
            let said = curl(
                &ca,
                &gateway,
                "a.test",
                &[protocol, "-H", &format!("host: {host}"), "-o", "/dev/null", "-w", "%{http_code}"],
            )?;
            assert_eq!(said, status, "{protocol} {host}");
        }
    }
    let (mut unnamed, _) = TlsClient::new(&ca)?.connect(gateway.address, "127.0.0.1")?;
    assert_eq!(unnamed.get("/", &[])?.status, 200, "a client that asked for no name");
    Ok(())
}

/// A gateway that sends everything on to `upstream` by TLS.
fn to(
    upstream: &Gateway,
    ca: &Authority,
    host: &str,
    more: &str,
    setup: impl FnOnce(Setup) -> Result<Setup>,
) -> Result<Gateway> {
    let endpoint = format!("https://{host}:{}", upstream.address.port());
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"{endpoint}\"], tls: {{ca: ca.pem{more}}}}}}}\nroutes: [{{upstream: u}}]"
    );
    setup(Setup::new(&yaml)?.with("ca.pem", ca.pem())?)?.start()
}

#[test]
fn upstreams_are_verified() -> Result<()> {
    let (ca, other) = (Authority::new("ca")?, Authority::new("other")?);
    let upstream = start(&ca, &[&["up.test", "127.0.0.1"]], "")?;
    let plain = |setup| Ok(setup);
    for (trusted, more, status, error) in [
        (&ca, "", 200, None),
        // Accepted, and so the upstream finds that it is asked for another host than the name in the handshake.
        (&ca, ", server_name: up.test, min_version: 1.3", 421, None),
        (&ca, ", server_name: wrong.test", 502, Some("tls_certificate_error")),
        (&other, "", 502, Some("tls_certificate_error")),
    ] {
        let gateway = to(&upstream, trusted, "127.0.0.1", more, plain)?;
        let response = gateway.get("/", &["x-a: 1"])?;
        assert_eq!(response.status, status, "{more}: {}", response.text());
        let proxy_status = response.header("proxy-status").unwrap_or_default();
        if let Some(error) = error {
            assert!(proxy_status.contains(error), "{proxy_status}");
            assert!(!response.text().contains("127.0.0.1"), "{}", response.text());
            gateway.wait_logged("upstream-certificate", 1);
        }
    }
    let echo = Setup::new(ECHO)?.start()?;
    let gateway = to(&echo, &ca, "127.0.0.1", "", plain)?;
    let response = gateway.get("/", &[])?;
    let proxy_status = response.header("proxy-status").unwrap_or_default().to_owned();
    assert_eq!((response.status, proxy_status.contains("tls_protocol_error")), (502, true), "{proxy_status}");
    Ok(())
}

#[test]
fn upstreams_see_who_the_gateway_is_and_its_files_rotate() -> Result<()> {
    let (ca, gateways) = (Authority::new("ca")?, Authority::new("gateways")?);
    let setup = Setup::new(ECHO)?.level("info,access=debug").with("gateways.pem", gateways.pem())?;
    let upstream = serving(&ca, &[&["127.0.0.1"]], ", client_auth: {ca: gateways.pem}", setup)?.start()?;
    let anonymous = to(&upstream, &ca, "127.0.0.1", "", Ok)?;
    assert_eq!(anonymous.get("/", &[])?.status, 502);
    let one = gateways.issue(&["gateway"])?;
    let gateway = to(&upstream, &ca, "127.0.0.1", ", certificate: own.pem, key: own.key", |setup| {
        setup.with("own.pem", &one.certificate)?.with("own.key", &one.key)
    })?;
    assert_eq!(gateway.get("/", &[])?.status, 200);
    upstream.wait_logged(&one.sha256, 1);
    let failed = "witgate_upstream_certificate_load_failures_total{upstream=\"u\",reason=\"mismatch\"}";
    let two = gateways.issue(&["gateway"])?;
    gateway.replace("own.pem", &two.certificate)?;
    wait_until("half a change is refused", || gateway.metric(failed).is_ok_and(|count| count == 1.0));
    assert_eq!(gateway.get("/", &[])?.status, 200);
    gateway.replace("own.key", &two.key)?;
    wait_until("the new identity, also where a connection was kept", || {
        gateway.get("/", &[]).is_ok_and(|response| response.status == 200) && !upstream.logged(&two.sha256).is_empty()
    });
    gateway.replace("ca.pem", Authority::new("ca")?.pem())?;
    wait_until("the upstream is no longer trusted", || {
        gateway.get("/", &[]).is_ok_and(|response| response.status == 502)
    });
    gateway.replace("ca.pem", ca.pem())?;
    wait_until("it is again", || gateway.get("/", &[]).is_ok_and(|response| response.status == 200));
    Ok(())
}

#[test]
fn a_bad_pair_keeps_the_one_before() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"], &["b.test"]], "")?;
    let client = TlsClient::new(&ca)?.forgetful();
    let shown = |name: &str| client.connect(gateway.address, name).map(|(_, handshake)| handshake.certificate);
    let first = shown("a.test")?;
    let good = ca.issue(&["a.test"])?;
    let expired = ca.issue_with(&["a.test"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1))?;
    let early = ca.issue_with(&["a.test"], |params| params.not_before = rcgen::date_time_ymd(2999, 1, 1))?;
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let cases = [
        ("garbled", "hello\n-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".into(), good.key.clone()),
        ("garbled", half(&good.certificate), good.key.clone()),
        ("garbled", good.certificate.clone(), half(&good.key)),
        ("no-certificate", String::new(), good.key.clone()),
        ("no-key", good.certificate.clone(), String::new()),
        ("mismatch", ca.issue(&["a.test"])?.certificate, good.key.clone()),
        ("expired", expired.certificate, expired.key),
        ("not-yet-valid", early.certificate, early.key),
    ];
    for (reason, certificate, key) in cases {
        let before = failures(&gateway, reason);
        renew(&gateway, 0, &Issued { certificate, key, sha256: String::new() })?;
        wait_until(reason, || failures(&gateway, reason) > before);
        assert_eq!(shown("a.test")?, first, "{reason}");
    }
    for file in ["0.key", "0.pem"] {
        std::fs::remove_file(gateway.path(file))?;
        gateway.wait_logged(&format!("{file}\",\"reason\":\"missing\""), 1);
        assert_eq!(shown("a.test")?, first, "{file} is missing");
    }
    let neighbour = ca.issue(&["b.test"])?;
    renew(&gateway, 1, &neighbour)?;
    wait_until("a neighbour is renewed all the same", || {
        shown("b.test").is_ok_and(|sha256| sha256 == neighbour.sha256)
    });
    renew(&gateway, 0, &good)?;
    wait_until("a good pair after bad ones", || shown("a.test").is_ok_and(|sha256| sha256 == good.sha256));
    let log = gateway.logged("").join("\n");
    assert!(log.contains("the key does not belong to the first certificate") && !log.contains("PRIVATE KEY"), "{log}");
    let secret: Vec<&str> = good.key.lines().filter(|line| !line.starts_with("---")).collect();
    assert!(secret.iter().all(|line| !log.contains(line)), "no key in the log");
    let until = gateway.metric("witgate_certificate_expiry_timestamp_seconds{listener=\"main\",name=\"a.test\"}")?;
    assert_eq!(until, 67_090_118_400.0, "the first of January 4096");
    assert_eq!(
        gateway.metric("witgate_reloads_total{result=\"applied\"}")?,
        0.0,
        "no configuration, no filter was touched"
    );
    // What is bad is told once, and again when somebody asks.
    std::fs::write(gateway.path("0.pem"), "hello")?;
    wait_until("it is told", || failures(&gateway, "no-certificate") >= 2.0);
    let told = failures(&gateway, "no-certificate");
    gateway.signal(Signal::HUP)?;
    wait_until("it is told again", || failures(&gateway, "no-certificate") == told + 1.0);
    Ok(())
}

#[test]
fn certificates_change_under_load_without_a_failure() -> Result<()> {
    let seconds = std::env::var("CERT_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    let (stop, handshakes, requests) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (seen, failed) = (Mutex::new(BTreeSet::new()), Mutex::new(vec![]));
    let load = |reconnects: bool| {
        let run = || -> Result<()> {
            let client = TlsClient::new(&ca)?.forgetful();
            let (mut http, _) = client.connect(gateway.address, "a.test")?;
            while !stop.load(Ordering::Relaxed) {
                if reconnects {
                    let (fresh, handshake) = client.connect(gateway.address, "a.test")?;
                    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(handshake.certificate);
                    handshakes.fetch_add(1, Ordering::Relaxed);
                    http = fresh;
                }
                ensure!(http.get("/", &[])?.status == 200);
                requests.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        if let Err(error) = run() {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
        }
    };
    let load = &load;
    std::thread::scope(|scope| -> Result<()> {
        for reconnects in [true, true, false] {
            scope.spawn(move || load(reconnects));
        }
        let began = Instant::now();
        let swaps = (0..seconds).try_for_each(|second| -> Result<()> {
            renew(&gateway, 0, &ca.issue(&["a.test"])?)?;
            let next = Duration::from_secs(second + 1);
            std::thread::sleep(next.saturating_sub(began.elapsed()));
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        swaps
    })?;
    let (seen, failed) =
        (seen.lock().unwrap_or_else(PoisonError::into_inner), failed.lock().unwrap_or_else(PoisonError::into_inner));
    println!(
        "{seconds} s: {} handshakes, {} requests, {} certificates seen, {} failed",
        handshakes.load(Ordering::Relaxed),
        requests.load(Ordering::Relaxed),
        seen.len(),
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(seen.len() as u64 >= seconds, "only {} certificates were seen in {seconds} seconds", seen.len());
    assert_eq!(gateway.metric("witgate_tls_handshakes_total{listener=\"main\",result=\"failed\"}")?, 0.0);
    Ok(())
}

#[test]
fn a_client_that_does_not_shake_hands_stops_nobody_and_is_cut() -> Result<()> {
    let ca = Authority::new("ca")?;
    let setup = Setup::new(&format!("timeouts: {{request_head: 400ms}}\n{ECHO}"))?.workers(1);
    let mut gateway = serving(&ca, &[&["a.test"]], "", setup)?.start()?;
    let mut silent: Vec<Client> = (0..50).map(|_| Client::connect(gateway.address)).collect::<Result<_>>()?;
    let mut half = Client::connect(gateway.address)?;
    half.write(&[22, 3, 1, 0, 200, 1])?;
    assert_eq!(greeted(&TlsClient::new(&ca)?, &gateway)?, 200);
    for client in silent.iter_mut().chain([&mut half]) {
        assert!(client.is_closed());
    }
    wait_until("they are counted", || {
        gateway
            .metric("witgate_tls_handshakes_total{listener=\"main\",result=\"timeout\"}")
            .is_ok_and(|count| count == 51.0)
    });
    let slow = start(&ca, &[&["a.test"]], "")?;
    let _waiting = Client::connect(slow.address)?;
    wait_until("it is accepted", || slow.metric("witgate_connections").is_ok_and(|count| count == 1.0));
    gateway.signal(Signal::TERM)?;
    assert_eq!(gateway.wait(Duration::from_secs(3))?.code(), Some(0));
    let mut slow = slow;
    slow.signal(Signal::TERM)?;
    assert_eq!(slow.wait(Duration::from_secs(3))?.code(), Some(0), "a drain does not wait for a handshake");
    Ok(())
}

#[test]
fn a_start_and_a_check_tell_what_is_wrong_with_the_files() -> Result<()> {
    let ca = Authority::new("ca")?;
    let (good, other) = (ca.issue(&["a.test"])?, ca.issue(&["b.test"])?);
    let expired = ca.issue_with(&["old.test"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1))?;
    let yaml = "upstreams: {u: {endpoints: [\"https://x.test\"], tls: {ca: absent.pem}}}\nroutes: [{upstream: u}]";
    let setup = || -> Result<Setup> {
        Setup::new(yaml)?.with("a.pem", &good.certificate)?.with("a.key", &other.key)?.with("text.pem", "hello").map(
            |setup| {
                setup.listener(
                    "tls: {certificates: [{certificate: a.pem, key: a.key}, {certificate: text.pem, key: none.key}]}",
                )
            },
        )
    };
    let (code, said) = setup()?.check()?;
    assert_eq!(code, Some(1));
    for expected in [
        "a.key: the key does not belong to the first certificate",
        "none.key: there is no such file",
        "upstreams.u.tls: ",
        "absent.pem: there is no such file",
    ] {
        assert!(said.contains(expected), "{expected} not in {said}");
    }
    let refused = setup()?.start().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("does not belong") && refused.contains("absent.pem"), "{refused}");
    let setup = Setup::new(ECHO)?.with("a.pem", &expired.certificate)?.with("a.key", &expired.key)?;
    let setup = setup.listener("tls: {certificates: [{certificate: a.pem, key: a.key}]}");
    let (code, said) = setup.check()?;
    assert_eq!(code, Some(0), "{said}");
    for expected in
        ["listener main: old.test until Mon, 01 Jan 2001", "is out of date since", "every user can read this key"]
    {
        assert!(said.contains(expected), "{expected} not in {said}");
    }
    let gateway = setup.start()?;
    assert_eq!(gateway.logged("needs attention").len(), 2, "no gateway at all would be worse");
    renew_as(&gateway, "a", &good)?;
    let client = TlsClient::new(&ca)?;
    wait_up_to(Duration::from_secs(10), "the good one", || client.connect(gateway.address, "a.test").is_ok());
    Ok(())
}

fn renew_as(gateway: &Gateway, name: &str, issued: &Issued) -> Result<()> {
    gateway.replace(&format!("{name}.pem"), &issued.certificate)?;
    gateway.replace(&format!("{name}.key"), &issued.key)
}

#[test]
fn the_terms_of_a_listener_need_a_restart() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    let path = gateway.path("gateway.yaml");
    let text = std::fs::read_to_string(&path)?.replacen("tls: {", "tls: {min_version: 1.3, ", 1);
    gateway.replace("gateway.yaml", text)?;
    let line = gateway.wait_logged("listeners cannot change while the gateway runs", 1);
    assert!(line.first().context("no line")?.contains("restart it"));
    assert!(TlsClient::only(&ca, &version::TLS12)?.connect(gateway.address, "a.test").is_ok());
    Ok(())
}

#[test]
fn http2_over_tls_is_one_connection_for_many_requests() -> Result<()> {
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
fn upstreams_are_checked_and_asked_over_http2_by_tls() -> Result<()> {
    let ca = Authority::new("ca")?;
    let setup = Setup::new(ECHO)?.level("info,access=debug");
    let upstream = serving(&ca, &[&["127.0.0.1"]], "", setup)?.start()?;
    let yaml = |more: &str| {
        let endpoint = format!("https://{}", upstream.address);
        format!(
            "upstreams: {{u: {{endpoints: [\"{endpoint}\"], tls: {{ca: ca.pem}}, {more}}}}}\nroutes: [{{upstream: u}}]"
        )
    };
    let gateway = Setup::new(&yaml("protocol: h2, health_check: {path: /well}"))?.with("ca.pem", ca.pem())?.start()?;
    for _ in 0..3 {
        assert_eq!(gateway.get("/", &[])?.status, 200);
    }
    let healthy = format!("witgate_endpoint_healthy{{upstream=\"u\",endpoint=\"{}\"}}", upstream.address);
    wait_until("a check", || {
        upstream.metric("witgate_tls_handshakes_total{listener=\"main\",result=\"full\"}").is_ok_and(|n| n >= 2.0)
    });
    wait_until("it is healthy", || gateway.metric(&healthy).is_ok_and(|healthy| healthy == 1.0));
    let stranger = Authority::new("stranger")?;
    let gateway = Setup::new(&yaml("health_check: {path: /well}"))?.with("ca.pem", stranger.pem())?.start()?;
    wait_until("a check that does not trust", || gateway.metric(&healthy).is_ok_and(|healthy| healthy == 0.0));
    let only_http1 = serving(&ca, &[&["127.0.0.1"]], ", protocols: [http/1.1]", Setup::new(ECHO)?)?.start()?;
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"https://{}\"], tls: {{ca: ca.pem}}, protocol: h2}}}}\nroutes: [{{upstream: u}}]",
        only_http1.address
    );
    let gateway = Setup::new(&yaml)?.with("ca.pem", ca.pem())?.start()?;
    let response = gateway.get("/", &[])?;
    assert!(
        response.status == 502
            && response.header("proxy-status").is_some_and(|said| said.contains("tls_protocol_error"))
    );
    Ok(())
}

#[test]
fn bodies_pass_by_tls_on_both_sides_and_a_cut_one_has_no_clean_end() -> Result<()> {
    let ca = Authority::new("ca")?;
    let last = Upstream::start()?;
    let plain = format!("upstreams: {{u: {}}}\nroutes: [{{upstream: u}}]", last.yaml());
    let middle = serving(&ca, &[&["127.0.0.1"]], "", Setup::new(&plain)?)?.start()?;
    for protocol in ["http1", "h2"] {
        let yaml = format!(
            "upstreams: {{u: {{endpoints: [\"https://{}\"], tls: {{ca: ca.pem}}, protocol: {protocol}}}}}\nroutes: [{{upstream: u}}]",
            middle.address
        );
        let first = serving(&ca, &[&["a.test"]], "", Setup::new(&yaml)?.with("ca.pem", ca.pem())?)?.start()?;
        let client = TlsClient::new(&ca)?;
        let (mut http, _) = client.connect(first.address, "a.test")?;
        let large = vec![b'y'; 10 << 20];
        assert_eq!(http.send("POST", "/length", &[], &large)?.text(), large.len().to_string(), "{protocol}");
        assert_eq!(http.get("/bytes/10000000", &[])?.body.len(), 10_000_000, "{protocol}");
        assert_eq!(http.get("/chunked", &[])?.text(), "abcde", "{protocol}");
        // Cut before its head came here over HTTP/2, the response is a 502.
        let cut = http.get("/cut", &[]);
        assert!(
            cut.is_err() || cut.is_ok_and(|cut| cut.status == 502),
            "{protocol}: a body that was cut never ends cleanly"
        );
        let (mut old, _) = client.connect(first.address, "a.test")?;
        old.write(b"GET /chunked HTTP/1.0\r\nhost: a.test\r\n\r\n")?;
        // Read to the end, which must be said (RFC 8446, section 6.1): without a close_notify this is an error.
        let response = old.read(false)?;
        assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("abcde", None), "{protocol}");
    }
    Ok(())
}

#[test]
fn an_upstream_that_does_not_say_the_end_has_not_ended() -> Result<()> {
    let ca = Authority::new("ca")?;
    for polite in [true, false] {
        let address = until_the_end(&ca.issue(&["127.0.0.1"])?, polite)?;
        let yaml = format!(
            "upstreams: {{u: {{endpoints: [\"https://{address}\"], tls: {{ca: ca.pem}}}}}}\nroutes: [{{upstream: u}}]"
        );
        let gateway = Setup::new(&yaml)?.with("ca.pem", ca.pem())?.start()?;
        let answer = gateway.get("/", &[]).map(|response| response.text());
        if polite {
            assert_eq!(answer?, "all of it");
        } else {
            assert!(answer.is_err(), "who can cut a connection could shorten a response: {answer:?}");
        }
    }
    Ok(())
}

/// A server whose one response ends with its connection: said (`polite`), or cut.
fn until_the_end(own: &Issued, polite: bool) -> Result<SocketAddr> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(own.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(own.key.as_bytes())?,
        )?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> Result<()> {
        let (tcp, _) = listener.accept()?;
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config))?, tcp);
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it")?;
        if polite {
            stream.conn.send_close_notify();
        }
        stream.flush()?;
        stream.sock.shutdown(std::net::Shutdown::Write)?;
        // Not a reset: that would be noticed anyway.
        let _ = stream.sock.read(&mut request);
        Ok(())
    });
    Ok(address)
}
