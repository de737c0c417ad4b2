//! gRPC through the gateway, with the client and the server that people use (`grpcio`), and with a filter on the route or without.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Setup, repository};

use super::peers::{H2Upstream, connect, request, run, write};
use super::tools;

/// Cases of the script.
const CASES_MIN: usize = 16;

#[test]
fn a_client_that_listens_to_an_answer_may_be_silent() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let gateway = Setup::new(&format!("timeouts: {{request_body: 300ms}}\n{}", upstream.yaml()))?.start()?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let (response, mut stream) = send.ready().await?.send_request(request("POST", "/echo"), false)?;
        let mut answer = response.await?.into_body();
        for part in ["one", "two", "three"] {
            write(&mut stream, part.into(), false).await?;
            ensure!(answer.data().await.context("it ended")?? == part);
            // Longer than a client may be silent that owes its request.
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        stream.send_data(bytes::Bytes::new(), true)?;
        while let Some(rest) = answer.data().await {
            ensure!(rest?.is_empty(), "more than was sent");
        }
        Ok(())
    })
}

#[test]
fn every_kind_of_call_passes() -> Result<()> {
    let python = tools::install("grpc")?.join("grpc/bin/python");
    let script = repository().join("tests/grpc/calls.py");
    // The upstream chooses its port and says it; the gateway is started for it, then the calls go through the gateway.
    let mut upstream = Upstream::start(&python, &script)?;
    let gateway = Setup::new(&upstream.yaml())?.with_guest("api-key.wasm", "typescript/api-key")?.start()?;
    let output = Command::new(&python)
        .arg(&script)
        .args(["calls", &gateway.address.to_string(), &upstream.address])
        .output()
        .context("the calls cannot be made")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{said}");
    upstream.end();
    ensure!(output.status.success(), "calls failed:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    ensure!(passed >= CASES_MIN, "only {passed} calls were made");
    Ok(())
}

/// The server of `calls.py` in a process of its own, ended when dropped.
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

    /// Service `plain` has no filter, `filtered` has one, `down` has nobody behind it.
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

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.end();
    }
}
