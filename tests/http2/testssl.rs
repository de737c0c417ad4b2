//! What testssl.sh finds on a TLS listener: nothing but that the certificate is of our own making.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::Setup;

use super::tools;

/// A certificate that no authority signed cannot be trusted, revoked or logged: that says nothing about the gateway.
const OWN_CERTIFICATE: &[&str] = &[
    "cert_chain_of_trust",
    "cert_caIssuers",
    "cert_crlDistributionPoints",
    "cert_ocspURL",
    "cert_revocation",
    "cert_trust",
    "cert_notAfter",
    "cert_extlifeSpan",
    "cert_validityPeriod",
    "cert_expirationStatus",
    "cert_commonName_wo_SNI",
    "cert_subjectAltName",
    "DNS_CAArecord",
    "OCSP_stapling",
    "certificate_transparency",
    "intermediate_cert_badOCSP",
    // The grade sums up the trust findings above.
    "overall_grade",
    "grade_cap_reason_1",
    "grade_cap_reason_2",
    // About the scanner's own OpenSSL.
    "engine_problem",
    // About the application behind, not the gateway.
    "HSTS",
    "banner_server",
    "banner_application",
    "cookie_count",
    "security_headers",
    "HTTP_clock_skew",
];

/// Whether it says nothing: the scanner's client leaves when the handshake is over, often before the ticket of TLS 1.3 came, and the scanner calls that a problem of the connection.
/// That sessions are resumed is shown in tests/e2e/tls.rs.
fn left_too_soon(finding: &serde_json::Value) -> bool {
    finding["id"].to_string().contains("sessionresumption_") && is_connect_problem(finding)
}

fn is_connect_problem(finding: &serde_json::Value) -> bool {
    finding["finding"].to_string().contains("connect problem")
}

/// A gateway whose listener has TLS with a certificate of its own, for `localhost`.
pub(crate) fn tls_setup(yaml: &str) -> Result<Setup> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    Setup::new(yaml)?
        .with("cert.pem", own.cert.pem())?
        .with("key.pem", own.signing_key.serialize_pem())
        .map(|setup| setup.listener("tls: {certificates: [{certificate: cert.pem, key: key.pem}]}"))
}

/// What the scanner found, and what it printed.
fn scan(port: u16) -> Result<(Vec<serde_json::Value>, String)> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("findings.json");
    let output = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none", "--jsonfile"])
        .arg(&json)
        .arg(format!("localhost:{port}"))
        .output()
        .context("testssl cannot be run")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = fs::read_to_string(&json).with_context(|| printed.clone())?;
    Ok((serde_json::from_str(&text)?, printed))
}

#[test]
fn testssl_finds_nothing() -> Result<()> {
    tools::install("testssl")?;
    let gateway = tls_setup("upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]")?.level("warn").start()?;
    // On a busy machine the scanner's own time to connect may be up: that says nothing about the gateway, and it is asked again.
    let mut scans = 0;
    let (findings, output) = loop {
        let (mut findings, output) = scan(gateway.address.port())?;
        findings.retain(|finding| !left_too_soon(finding));
        scans += 1;
        if scans == 3 || !findings.iter().any(is_connect_problem) {
            break (findings, output);
        }
    };
    let of = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    ensure!(findings.len() > 100, "only {} findings: {}", findings.len(), output);
    for offered in ["TLS1_2", "TLS1_3"] {
        let found = findings.iter().find(|finding| of(finding, "id") == offered).context(offered)?;
        ensure!(of(found, "finding").starts_with("offered"), "{offered}: {found}");
    }
    let severe: Vec<_> = findings
        .iter()
        .filter(|finding| !matches!(of(finding, "severity").as_str(), "OK" | "INFO" | "LOW" | "DEBUG"))
        .filter(|finding| !OWN_CERTIFICATE.iter().any(|id| of(finding, "id").split(' ').next() == Some(id)))
        .map(|finding| format!("{} {}: {}", of(finding, "severity"), of(finding, "id"), of(finding, "finding")))
        .collect();
    ensure!(severe.is_empty(), "testssl found:\n{}", severe.join("\n"));
    let ciphers: Vec<_> = findings.iter().filter(|finding| of(finding, "id").starts_with("cipher")).collect();
    ensure!(!ciphers.is_empty(), "no cipher was listed");
    for cipher in ciphers {
        let text = of(cipher, "finding");
        ensure!(!text.contains("CBC") && !text.contains("RC4") && !text.contains("3DES"), "a weak cipher: {text}");
    }
    println!("{} findings, none severe", findings.len());
    Ok(())
}
