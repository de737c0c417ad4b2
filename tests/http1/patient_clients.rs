//! Honest clients that look like slow attackers: low rates, connections that wait for their first
//! request, and pools of idle connections. None is cut.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Gateway, Setup};

fn gateway() -> Result<Gateway> {
    let body = "x".repeat(60_000);
    let yaml = format!(
        "upstreams: {{u: {{builtin: echo}}}}\nroutes:\n  - {{match: {{path: /download}}, respond: {{body: {body}}}}}\n  \
         - {{upstream: u}}"
    );
    Setup::new(&yaml)?.start()
}

/// Runs curl. Returns the status and the number of bytes in both directions.
fn curl(gateway: &Gateway, path: &str, more: &[&str]) -> Result<String> {
    let output = Command::new("curl")
        .args(["-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code} %{size_upload} %{size_download}"])
        .args(more)
        .arg(format!("http://{}{path}", gateway.address))
        .output()?;
    ensure!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_slow_network_is_served() -> Result<()> {
    let gateway = gateway()?;
    let upload = tempfile::NamedTempFile::new()?;
    std::fs::write(&upload, vec![b'x'; 60_000])?;
    let data = format!("@{}", upload.path().display());
    std::thread::scope(|scope| {
        let mut running = vec![];
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let (gateway, data) = (&gateway, data.as_str());
            running.push(scope.spawn(move || {
                let sent = curl(gateway, "/", &[version, "--limit-rate", "10K", "--data-binary", data])?;
                ensure!(sent.starts_with("200 60000 "), "{version}: {sent}");
                Ok(())
            }));
            running.push(scope.spawn(move || {
                let received = curl(gateway, "/download", &[version, "--limit-rate", "10K"])?;
                ensure!(received == "200 0 60000", "{version}: {received}");
                Ok(())
            }));
        }
        running.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })
}

/// Browsers connect before they have a request; pools of Java and Go keep connections open.
#[test]
fn idle_connections_are_kept() -> Result<()> {
    let gateway = gateway()?;
    let mut pool = (0..50).map(|_| gateway.client()).collect::<Result<Vec<_>>>()?;
    for round in 0..2 {
        std::thread::sleep(Duration::from_secs(3));
        for client in &mut pool {
            ensure!(client.get("/", &[])?.status == 200, "round {round}");
        }
    }
    Ok(())
}
