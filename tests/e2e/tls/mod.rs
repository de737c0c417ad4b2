//! TLS on both sides of the gateway. This file has the setup that the three topics share.

mod certificates;
mod listener;
mod upstreams;

use std::process::Command;

use anyhow::Result;
use harness::tls::{Authority, IssuedCertificate, TlsClient};
use harness::{Gateway, Setup};

const ECHO: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{name: all, upstream: echo}]";

/// Starts a gateway with one certificate for each list of names. The files are `0.pem`, `0.key` and
/// so on. `more` is appended to the listener's `tls` settings.
pub(super) fn start(authority: &Authority, names: &[&[&str]], more: &str) -> Result<Gateway> {
    tls_setup(authority, names, more, Setup::new(ECHO)?)?.start()
}

/// The same without starting, on top of `setup`.
pub(super) fn tls_setup(authority: &Authority, names: &[&[&str]], more: &str, mut setup: Setup) -> Result<Setup> {
    let mut pairs = String::new();
    for (index, names) in names.iter().enumerate() {
        let issued = authority.issue(names)?;
        setup = setup.with(&format!("{index}.pem"), issued.certificate)?.with(&format!("{index}.key"), issued.key)?;
        pairs.push_str(&format!("{{certificate: {index}.pem, key: {index}.key}}, "));
    }
    Ok(setup.listener(&format!("tls: {{certificates: [{pairs}]{more}}}")))
}

/// Replaces a certificate and then its key, as renewal tools do.
pub(super) fn renew(gateway: &Gateway, index: usize, issued: &IssuedCertificate) -> Result<()> {
    gateway.replace(&format!("{index}.pem"), &issued.certificate)?;
    gateway.replace(&format!("{index}.key"), &issued.key)
}

/// How many certificate files were refused for this reason.
pub(super) fn load_failures(gateway: &Gateway, reason: &str) -> f64 {
    let line = format!("witgate_certificate_load_failures_total{{listener=\"main\",reason=\"{reason}\"}}");
    gateway.metric(&line).unwrap_or_default()
}

/// Requests `https://HOST/` with curl. Returns its standard output and standard error.
pub(super) fn curl(authority: &Authority, gateway: &Gateway, host: &str, more: &[&str]) -> Result<String> {
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

/// The status of a request to `a.test`. With TLS 1.3 a client learns only from the response that
/// its certificate was refused.
pub(super) fn status_of(client: &TlsClient, gateway: &Gateway) -> Result<u16> {
    let (mut http, _) = client.connect(gateway.address, "a.test")?;
    Ok(http.get("/", &[])?.status)
}
