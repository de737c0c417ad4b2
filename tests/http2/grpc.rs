//! gRPC through the gateway, between a `grpcio` client and a `grpcio` server, with and without a
//! filter on the route.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Setup, repository};

use super::client::{connect, request, run, write};
use super::tools;
use super::upstream::H2Upstream;

/// The minimum number of calls that the script makes.
const CASES_MIN: usize = 16;

#[test]
fn the_request_body_timeout_stops_once_the_response_has_begun() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = Setup::new(&format!("timeouts: {{request_body: 300ms}}\n{}", upstream.yaml()))?.start()?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let (response, mut stream) = send.ready().await?.send_request(request("POST", "/echo"), false)?;
        let mut body = response.await?.into_body();
        for part in ["one", "two", "three"] {
            write(&mut stream, part.into(), false).await?;
            ensure!(body.data().await.context("the response ended")?? == part);
            // Longer than the timeout for the request body.
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        stream.send_data(bytes::Bytes::new(), true)?;
        while let Some(rest) = body.data().await {
            ensure!(rest?.is_empty(), "the response has more data than was sent");
        }
        Ok(())
    })
}

#[test]
fn every_kind_of_call_works() -> Result<()> {
    let python = tools::install("grpc")?.join("grpc/bin/python");
    let script = repository().join("tests/grpc/calls.py");
    // The upstream prints the port that it chose, so it starts before the gateway.
    let mut upstream = Upstream::start(&python, &script)?;
    let gateway = Setup::new(&upstream.yaml())?.with_guest("api-key.wasm", "typescript/api-key")?.start()?;
    let output = Command::new(&python)
        .arg(&script)
        .args(["calls", &gateway.address.to_string(), &upstream.address])
        .output()
        .context("cannot run the calls")?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{stdout}");
    upstream.kill();
    ensure!(output.status.success(), "calls failed:\n{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let passed = stdout.lines().filter(|line| line.starts_with("ok ")).count();
    ensure!(passed >= CASES_MIN, "only {passed} calls passed, at least {CASES_MIN} must");
    Ok(())
}

/// The server of `calls.py`, in its own process, which is killed on drop.
struct Upstream {
    child: std::process::Child,
    address: String,
}

impl Upstream {
    fn start(python: &std::path::Path, script: &std::path::Path) -> Result<Self> {
        use std::io::BufRead as _;
        let mut child = Command::new(python).arg(script).arg("serve").stdout(std::process::Stdio::piped()).spawn()?;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let address = line.trim().to_owned();
        ensure!(address.contains(':'), "the gRPC server did not start: {line:?}");
        Ok(Self { child, address })
    }

    /// The service `plain` has no filter, `filtered` has one, and the upstream of `down` refuses
    /// connections.
    fn yaml(&self) -> String {
        format!(
            "timeouts: {{filters: 3s, idle: 30s}}
upstreams:
  g: {{endpoints: [\"http://{}\"], protocol: h2, timeout: 20s}}
  down: {{endpoints: [\"http://127.0.0.1:1\"], protocol: h2, timeout: 20s}}
filters: {{key: {{source: api-key.wasm, timeout: 2s, config: {{key: s3cret}}}}}}
routes:
  - {{match: {{path: /plain}}, upstream: g}}
  - {{match: {{path: /filtered}}, filters: [key], upstream: g}}
  - {{match: {{path: /down}}, upstream: down}}",
            self.address
        )
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.kill();
    }
}
