//! testssl.sh finds no severe problem on a TLS listener, except that the certificate is
//! self-signed.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::Setup;

use super::tools;

/// Findings that say nothing about the gateway. Most concern the self-signed certificate, which
/// cannot be trusted, revoked or logged.
const IGNORED: &[&str] = &[
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
    // The grade depends on the findings about trust.
    "overall_grade",
    "grade_cap_reason_1",
    "grade_cap_reason_2",
    // Concerns the scanner's OpenSSL.
    "engine_problem",
    // Concern the application behind the gateway.
    "HSTS",
    "banner_server",
    "banner_application",
    "cookie_count",
    "security_headers",
    "HTTP_clock_skew",
];

/// Whether the scanner's client closed before it received the session ticket of TLS 1.3. The
/// scanner reports that as a connect problem. The e2e tests of TLS cover session resumption.
fn closed_before_ticket(finding: &serde_json::Value) -> bool {
    finding["id"].to_string().contains("sessionresumption_") && is_connect_problem(finding)
}

fn is_connect_problem(finding: &serde_json::Value) -> bool {
    finding["finding"].to_string().contains("connect problem")
}

/// A gateway whose listener has TLS with a self-signed certificate for `localhost`.
pub(crate) fn tls_setup(yaml: &str) -> Result<Setup> {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    Setup::new(yaml)?
        .with("cert.pem", certificate.cert.pem())?
        .with("key.pem", certificate.signing_key.serialize_pem())
        .map(|setup| setup.listener("tls: {certificates: [{certificate: cert.pem, key: key.pem}]}"))
}

/// Runs the scanner. Returns its findings and its output.
fn scan(port: u16) -> Result<(Vec<serde_json::Value>, String)> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("findings.json");
    let output = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none", "--jsonfile"])
        .arg(&json)
        .arg(format!("localhost:{port}"))
        .output()
        .context("cannot run testssl")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = fs::read_to_string(&json).with_context(|| printed.clone())?;
    Ok((serde_json::from_str(&text)?, printed))
}

#[test]
fn testssl_finds_no_severe_problem() -> Result<()> {
    tools::install("testssl")?;
    let gateway = tls_setup("upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]")?.level("warn").start()?;
    // On a busy machine the scanner's connect timeout may expire, so the scan is repeated.
    let mut scans = 0;
    let (findings, output) = loop {
        let (mut findings, output) = scan(gateway.address.port())?;
        findings.retain(|finding| !closed_before_ticket(finding));
        scans += 1;
        if scans == 3 || !findings.iter().any(is_connect_problem) {
            break (findings, output);
        }
    };
    let of = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    ensure!(findings.len() > 100, "the scan is incomplete, with only {} findings: {}", findings.len(), output);
    for offered in ["TLS1_2", "TLS1_3"] {
        let found = findings.iter().find(|finding| of(finding, "id") == offered).context(offered)?;
        ensure!(of(found, "finding").starts_with("offered"), "{offered}: {found}");
    }
    let severe: Vec<_> = findings
        .iter()
        .filter(|finding| !matches!(of(finding, "severity").as_str(), "OK" | "INFO" | "LOW" | "DEBUG"))
        .filter(|finding| !IGNORED.iter().any(|id| of(finding, "id").split(' ').next() == Some(id)))
        .map(|finding| format!("{} {}: {}", of(finding, "severity"), of(finding, "id"), of(finding, "finding")))
        .collect();
    ensure!(severe.is_empty(), "testssl found:\n{}", severe.join("\n"));
    let ciphers: Vec<_> = findings.iter().filter(|finding| of(finding, "id").starts_with("cipher")).collect();
    ensure!(!ciphers.is_empty(), "the scan lists no cipher");
    for cipher in ciphers {
        let text = of(cipher, "finding");
        ensure!(
            !text.contains("CBC") && !text.contains("RC4") && !text.contains("3DES"),
            "the listener offers a weak cipher: {text}"
        );
    }
    println!("{} findings, none of them severe", findings.len());
    Ok(())
}
