//! TLS to upstreams: verification, the gateway's own certificate, HTTP/2 and truncated responses.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Result;
use harness::tls::{Authority, IssuedCertificate, TlsClient};
use harness::{Gateway, Setup, Upstream, wait_until};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{ECHO, start, tls_setup};

/// A gateway that forwards every request to `upstream` over TLS. `more` is appended to the
/// upstream's `tls` settings.
fn forwarding_to(
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
fn upstream_certificates_are_verified() -> Result<()> {
    let (ca, other) = (Authority::new("ca")?, Authority::new("other")?);
    let upstream = start(&ca, &[&["up.test", "127.0.0.1"]], "")?;
    let plain = |setup| Ok(setup);
    for (trusted, more, status, error) in [
        (&ca, "", 200, None),
        // The certificate is accepted. The upstream then refuses the request, because its host
        // differs from the server name of the handshake.
        (&ca, ", server_name: up.test, min_version: 1.3", 421, None),
        (&ca, ", server_name: wrong.test", 502, Some("tls_certificate_error")),
        (&other, "", 502, Some("tls_certificate_error")),
    ] {
        let gateway = forwarding_to(&upstream, trusted, "127.0.0.1", more, plain)?;
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
    let gateway = forwarding_to(&echo, &ca, "127.0.0.1", "", plain)?;
    let response = gateway.get("/", &[])?;
    let proxy_status = response.header("proxy-status").unwrap_or_default().to_owned();
    assert_eq!((response.status, proxy_status.contains("tls_protocol_error")), (502, true), "{proxy_status}");
    Ok(())
}

#[test]
fn the_gateway_shows_its_certificate_to_upstreams_and_reloads_it() -> Result<()> {
    let (ca, gateways) = (Authority::new("ca")?, Authority::new("gateways")?);
    let setup = Setup::new(ECHO)?.access_log("").with("gateways.pem", gateways.pem())?;
    let upstream = tls_setup(&ca, &[&["127.0.0.1"]], ", client_auth: {ca: gateways.pem}", setup)?.start()?;
    let anonymous = forwarding_to(&upstream, &ca, "127.0.0.1", "", Ok)?;
    assert_eq!(anonymous.get("/", &[])?.status, 502);
    let one = gateways.issue(&["gateway"])?;
    let gateway = forwarding_to(&upstream, &ca, "127.0.0.1", ", certificate: own.pem, key: own.key", |setup| {
        setup.with("own.pem", &one.certificate)?.with("own.key", &one.key)
    })?;
    assert_eq!(gateway.get("/", &[])?.status, 200);
    upstream.wait_accessed(&one.sha256, 1);
    let failed = "witgate_upstream_certificate_load_failures_total{upstream=\"u\",reason=\"mismatch\"}";
    let two = gateways.issue(&["gateway"])?;
    gateway.replace("own.pem", &two.certificate)?;
    wait_until("a certificate without its key is refused", || gateway.metric(failed).is_ok_and(|count| count == 1.0));
    assert_eq!(gateway.get("/", &[])?.status, 200);
    gateway.replace("own.key", &two.key)?;
    wait_until("the new certificate is used, although a connection was kept", || {
        gateway.get("/", &[]).is_ok_and(|response| response.status == 200) && !upstream.accessed(&two.sha256).is_empty()
    });
    gateway.replace("ca.pem", Authority::new("ca")?.pem())?;
    wait_until("the gateway stops trusting the upstream", || {
        gateway.get("/", &[]).is_ok_and(|response| response.status == 502)
    });
    gateway.replace("ca.pem", ca.pem())?;
    wait_until("the gateway trusts the upstream again", || {
        gateway.get("/", &[]).is_ok_and(|response| response.status == 200)
    });
    Ok(())
}

#[test]
fn health_checks_and_requests_use_http2_over_tls() -> Result<()> {
    let ca = Authority::new("ca")?;
    let setup = Setup::new(ECHO)?.access_log("");
    let upstream = tls_setup(&ca, &[&["127.0.0.1"]], "", setup)?.start()?;
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
    wait_until("the health check connects", || {
        upstream.metric("witgate_tls_handshakes_total{listener=\"main\",result=\"full\"}").is_ok_and(|n| n >= 2.0)
    });
    wait_until("the endpoint is healthy", || gateway.metric(&healthy).is_ok_and(|healthy| healthy == 1.0));
    let stranger = Authority::new("stranger")?;
    let gateway = Setup::new(&yaml("health_check: {path: /well}"))?.with("ca.pem", stranger.pem())?.start()?;
    wait_until("the endpoint of an unknown authority is unhealthy", || {
        gateway.metric(&healthy).is_ok_and(|healthy| healthy == 0.0)
    });
    let only_http1 = tls_setup(&ca, &[&["127.0.0.1"]], ", protocols: [http/1.1]", Setup::new(ECHO)?)?.start()?;
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"https://{}\"], tls: {{ca: ca.pem}}, protocol: h2}}}}\nroutes: [{{upstream: u}}]",
        only_http1.address
    );
    let gateway = Setup::new(&yaml)?.with("ca.pem", ca.pem())?.start()?;
    let response = gateway.get("/", &[])?;
    assert!(
        response.status == 502
            && response.header("proxy-status").is_some_and(|output| output.contains("tls_protocol_error"))
    );
    Ok(())
}

#[test]
fn bodies_pass_through_tls_on_both_sides_and_truncation_is_an_error() -> Result<()> {
    let ca = Authority::new("ca")?;
    let last = Upstream::start()?;
    let plain = format!("upstreams: {{u: {}}}\nroutes: [{{upstream: u}}]", last.yaml());
    let middle = tls_setup(&ca, &[&["127.0.0.1"]], "", Setup::new(&plain)?)?.start()?;
    for protocol in ["http1", "h2"] {
        let yaml = format!(
            "upstreams: {{u: {{endpoints: [\"https://{}\"], tls: {{ca: ca.pem}}, protocol: {protocol}}}}}\nroutes: [{{upstream: u}}]",
            middle.address
        );
        let first = tls_setup(&ca, &[&["a.test"]], "", Setup::new(&yaml)?.with("ca.pem", ca.pem())?)?.start()?;
        let client = TlsClient::new(&ca)?;
        let (mut http, _) = client.connect(first.address, "a.test")?;
        let large = vec![b'y'; 10 << 20];
        assert_eq!(http.send("POST", "/length", &[], &large)?.text(), large.len().to_string(), "{protocol}");
        assert_eq!(http.get("/bytes/10000000", &[])?.body.len(), 10_000_000, "{protocol}");
        assert_eq!(http.get("/chunked", &[])?.text(), "abcde", "{protocol}");
        // Over HTTP/2 the connection can end before the head arrives. The response is then 502.
        let cut = http.get("/cut", &[]);
        assert!(
            cut.is_err() || cut.is_ok_and(|cut| cut.status == 502),
            "{protocol}: a truncated body must not end cleanly"
        );
        let (mut old, _) = client.connect(first.address, "a.test")?;
        old.write(b"GET /chunked HTTP/1.0\r\nhost: a.test\r\n\r\n")?;
        // The client reads until the connection's end. Without a close_notify that is an error (RFC
        // 8446, section 6.1).
        let response = old.read(false)?;
        assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("abcde", None), "{protocol}");
    }
    Ok(())
}

#[test]
fn an_upstream_response_without_close_notify_is_truncated() -> Result<()> {
    let ca = Authority::new("ca")?;
    for with_close_notify in [true, false] {
        let address = serve_until_close(&ca.issue(&["127.0.0.1"])?, with_close_notify)?;
        let yaml = format!(
            "upstreams: {{u: {{endpoints: [\"https://{address}\"], tls: {{ca: ca.pem}}}}}}\nroutes: [{{upstream: u}}]"
        );
        let gateway = Setup::new(&yaml)?.with("ca.pem", ca.pem())?.start()?;
        let body = gateway.get("/", &[]).map(|response| response.text());
        if with_close_notify {
            assert_eq!(body?, "all of it");
        } else {
            assert!(body.is_err(), "without close_notify an attacker could truncate a response: {body:?}");
        }
    }
    Ok(())
}

/// A TLS server for one request, whose response ends with the connection, with or without a
/// close_notify.
fn serve_until_close(identity: &IssuedCertificate, with_close_notify: bool) -> Result<SocketAddr> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> Result<()> {
        let (tcp, _) = listener.accept()?;
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config))?, tcp);
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it")?;
        if with_close_notify {
            stream.conn.send_close_notify();
        }
        stream.flush()?;
        stream.sock.shutdown(std::net::Shutdown::Write)?;
        // Wait until the peer closes. An earlier drop would send a reset, which every peer notices.
        let _ = stream.sock.read(&mut request);
        Ok(())
    });
    Ok(address)
}
