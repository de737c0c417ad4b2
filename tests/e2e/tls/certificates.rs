//! Certificate files that change while the gateway runs: valid ones are served without a failed
//! request, invalid ones are refused and the previous ones stay.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::tls::{Authority, IssuedCertificate, TlsClient};
use harness::{Gateway, Setup, wait_until, wait_up_to};
use rustix::process::Signal;
use tokio_rustls::rustls::version;

use super::{ECHO, load_failures, renew, start, status_of, tls_setup};

#[test]
fn an_invalid_certificate_or_key_keeps_the_previous_pair() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"], &["b.test"]], "")?;
    let client = TlsClient::new(&ca)?.without_resumption();
    let shown = |name: &str| client.connect(gateway.address, name).map(|(_, handshake)| handshake.certificate);
    let first = shown("a.test")?;
    let valid = ca.issue(&["a.test"])?;
    let expired = ca.issue_with(&["a.test"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1))?;
    let early = ca.issue_with(&["a.test"], |params| params.not_before = rcgen::date_time_ymd(2999, 1, 1))?;
    let half = |text: &str| text[..text.len() / 2].to_owned();
    // The files are replaced one after the other. So no certificate of a case fits the key of the
    // case before it, and the gateway never finds a valid pair between two cases.
    let other_key = ca.issue(&["a.test"])?.key;
    let cases = [
        ("garbled", "hello\n-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".into(), other_key.clone()),
        ("garbled", half(&valid.certificate), other_key.clone()),
        ("garbled", valid.certificate.clone(), half(&valid.key)),
        ("no-certificate", String::new(), other_key),
        ("no-key", valid.certificate.clone(), String::new()),
        ("mismatch", ca.issue(&["a.test"])?.certificate, valid.key.clone()),
        ("expired", expired.certificate, expired.key),
        ("not-yet-valid", early.certificate, early.key),
    ];
    for (reason, certificate, key) in cases {
        let before = load_failures(&gateway, reason);
        renew(&gateway, 0, &IssuedCertificate { certificate, key, sha256: String::new() })?;
        wait_until(reason, || load_failures(&gateway, reason) > before);
        assert_eq!(shown("a.test")?, first, "{reason}");
    }
    for file in ["0.key", "0.pem"] {
        std::fs::remove_file(gateway.path(file))?;
        gateway.wait_logged(&format!("{file}\",\"reason\":\"missing\""), 1);
        assert_eq!(shown("a.test")?, first, "{file} is missing");
    }
    let neighbour = ca.issue(&["b.test"])?;
    renew(&gateway, 1, &neighbour)?;
    wait_until("the other certificate is renewed nevertheless", || {
        shown("b.test").is_ok_and(|sha256| sha256 == neighbour.sha256)
    });
    renew(&gateway, 0, &valid)?;
    wait_until("a valid pair replaces the previous one", || shown("a.test").is_ok_and(|sha256| sha256 == valid.sha256));
    let log = gateway.logged("").join("\n");
    assert!(log.contains("the key does not belong to the first certificate") && !log.contains("PRIVATE KEY"), "{log}");
    let secret: Vec<&str> = valid.key.lines().filter(|line| !line.starts_with("---")).collect();
    assert!(secret.iter().all(|line| !log.contains(line)), "the log contains no private key");
    let until = gateway.metric("witgate_certificate_expiry_timestamp_seconds{listener=\"main\",name=\"a.test\"}")?;
    assert_eq!(until, 67_090_118_400.0, "the certificate expires on 1 January 4096");
    assert_eq!(
        gateway.metric("witgate_reloads_total{result=\"applied\"}")?,
        0.0,
        "neither the configuration nor a filter was reloaded"
    );
    // The gateway reports an invalid file once, and again after a hang-up signal.
    std::fs::write(gateway.path("0.pem"), "hello")?;
    wait_until("the error is reported", || load_failures(&gateway, "no-certificate") >= 2.0);
    let reported = load_failures(&gateway, "no-certificate");
    gateway.signal(Signal::HUP)?;
    wait_until("the error is reported again", || load_failures(&gateway, "no-certificate") == reported + 1.0);
    Ok(())
}

#[test]
fn a_client_of_a_removed_authority_is_refused() -> Result<()> {
    let (ca, old, new) = (Authority::new("ca")?, Authority::new("old")?, Authority::new("new")?);
    let setup = Setup::new(ECHO)?.with("clients.pem", old.pem())?;
    let gateway = tls_setup(&ca, &[&["a.test"]], ", client_auth: {ca: clients.pem}", setup)?.start()?;
    let (alice, bob) = (
        TlsClient::with_certificate(&ca, &old.issue(&["alice"])?)?,
        TlsClient::with_certificate(&ca, &new.issue(&["bob"])?)?,
    );
    assert_eq!((status_of(&alice, &gateway)?, status_of(&bob, &gateway).is_ok()), (200, false));
    gateway.replace("clients.pem", &new.pem()[..100])?;
    wait_until("a truncated authority file is refused", || load_failures(&gateway, "garbled") == 1.0);
    assert_eq!((status_of(&alice, &gateway)?, status_of(&bob, &gateway).is_ok()), (200, false));
    gateway.replace("clients.pem", new.pem())?;
    wait_until("clients of the new authority are accepted", || {
        status_of(&bob, &gateway).is_ok_and(|status| status == 200)
    });
    assert!(status_of(&alice, &gateway).is_err(), "neither the certificate nor a session ticket is accepted");
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
            let client = TlsClient::new(&ca)?.without_resumption();
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
    assert!(seen.len() as u64 >= seconds, "clients saw only {} certificates in {seconds} seconds", seen.len());
    assert_eq!(gateway.metric("witgate_tls_handshakes_total{listener=\"main\",result=\"failed\"}")?, 0.0);
    Ok(())
}

#[test]
fn start_and_check_report_errors_in_certificate_files() -> Result<()> {
    let ca = Authority::new("ca")?;
    let (valid, other) = (ca.issue(&["a.test"])?, ca.issue(&["b.test"])?);
    let expired = ca.issue_with(&["old.test"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1))?;
    let yaml = "upstreams: {u: {endpoints: [\"https://x.test\"], tls: {ca: absent.pem}}}\nroutes: [{upstream: u}]";
    let setup = || -> Result<Setup> {
        Setup::new(yaml)?.with("a.pem", &valid.certificate)?.with("a.key", &other.key)?.with("text.pem", "hello").map(
            |setup| {
                setup.listener(
                    "tls: {certificates: [{certificate: a.pem, key: a.key}, {certificate: text.pem, key: none.key}]}",
                )
            },
        )
    };
    let (code, output) = setup()?.check()?;
    assert_eq!(code, Some(1));
    for expected in [
        "a.key: the key does not belong to the first certificate",
        "none.key: there is no such file",
        "upstreams.u.tls: ",
        "absent.pem: there is no such file",
    ] {
        assert!(output.contains(expected), "{expected} is not in {output}");
    }
    let refused = setup()?.start().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("does not belong") && refused.contains("absent.pem"), "{refused}");
    let setup = Setup::new(ECHO)?.with("a.pem", &expired.certificate)?.with("a.key", &expired.key)?;
    let setup = setup.listener("tls: {certificates: [{certificate: a.pem, key: a.key}]}");
    let (code, output) = setup.check()?;
    assert_eq!(code, Some(0), "{output}");
    for expected in ["listener main: old.test until Mon, 01 Jan 2001", "expired on", "every user can read this key"] {
        assert!(output.contains(expected), "{expected} is not in {output}");
    }
    let gateway = setup.start()?;
    assert_eq!(gateway.logged("needs attention").len(), 2, "an expired certificate is reported and served");
    renew_files(&gateway, "a", &valid)?;
    let client = TlsClient::new(&ca)?;
    wait_up_to(Duration::from_secs(10), "the valid certificate is served", || {
        client.connect(gateway.address, "a.test").is_ok()
    });
    Ok(())
}

fn renew_files(gateway: &Gateway, name: &str, issued: &IssuedCertificate) -> Result<()> {
    gateway.replace(&format!("{name}.pem"), &issued.certificate)?;
    gateway.replace(&format!("{name}.key"), &issued.key)
}

#[test]
fn listener_settings_change_only_with_a_restart() -> Result<()> {
    let ca = Authority::new("ca")?;
    let gateway = start(&ca, &[&["a.test"]], "")?;
    let path = gateway.path("gateway.yaml");
    let text = std::fs::read_to_string(&path)?.replacen("tls: {", "tls: {min_version: 1.3, ", 1);
    gateway.replace("gateway.yaml", text)?;
    let line = gateway.wait_logged("listeners cannot change while the gateway runs", 1);
    assert!(line.first().context("the log has no such line")?.contains("restart it"));
    assert!(TlsClient::with_version(&ca, &version::TLS12)?.connect(gateway.address, "a.test").is_ok());
    Ok(())
}
