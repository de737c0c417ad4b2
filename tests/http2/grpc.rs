//! gRPC through the gateway, between clients of Python, Go and Node.js and servers of Python and
//! Go, with and without a filter on the route.

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
    let mut upstream = Upstream::start(Command::new(&python).arg(&script))?;
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

/// Messages of a stream, calls in turn, and clients at once. The long form, which
/// `WITGATE_GRPC_LONG` selects, takes minutes.
fn load() -> [String; 3] {
    let long = std::env::var_os("WITGATE_GRPC_LONG").is_some();
    let numbers = if long { [100_000, 20_000, 10] } else { [10_000, 2_000, 2] };
    numbers.map(|number: u32| number.to_string())
}

/// Runs a program whose output says what failed.
fn run_clients(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot run the client")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    ensure!(output.status.success(), "calls failed:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn grpcio_keeps_one_connection_over_many_small_messages() -> Result<()> {
    let python = tools::install("grpc")?.join("grpc/bin/python");
    let script = repository().join("tests/grpc/calls.py");
    let upstream = Upstream::start(Command::new(&python).arg(&script))?;
    let gateway = Setup::new(&upstream.plain_yaml())?.start()?;
    let [messages, calls, _] = load();
    run_clients(Command::new(&python).arg(&script).args(["load", &gateway.address.to_string(), &messages, &calls]))
}

#[test]
fn grpc_js_keeps_one_connection_over_many_small_messages() -> Result<()> {
    let tools = tools::install("grpc")?;
    tools::install("grpc-node")?;
    let script = repository().join("tests/grpc/calls.py");
    let upstream = Upstream::start(Command::new(tools.join("grpc/bin/python")).arg(&script))?;
    let gateway = Setup::new(&upstream.plain_yaml())?.start()?;
    let [messages, calls, _] = load();
    let client = tools.join("grpc-node/load.mjs");
    run_clients(Command::new("node").arg(client).args([&gateway.address.to_string(), &messages, &calls]))
}

#[test]
fn grpc_go_keeps_one_connection_over_many_small_messages() -> Result<()> {
    let program = tools::install("grpc-go")?.join("grpc-go");
    let upstream = Upstream::start(&mut Command::new(&program))?;
    let gateway = Setup::new(&upstream.plain_yaml())?.start()?;
    let [messages, calls, clients] = load();
    run_clients(Command::new(&program).args(["calls", &gateway.address.to_string(), &messages, &calls, &clients]))
}

/// The server of a program, in its own process, which is killed on drop.
struct Upstream {
    child: std::process::Child,
    address: String,
}

impl Upstream {
    fn start(command: &mut Command) -> Result<Self> {
        use std::io::BufRead as _;
        let mut child = command.arg("serve").stdout(std::process::Stdio::piped()).spawn()?;
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
  slow: {{endpoints: [\"http://{}\"], protocol: h2, timeout: 3500ms}}
filters: {{key: {{source: api-key.wasm, timeout: 2s, config: {{key: s3cret}}}}}}
routes:
  - {{match: {{path: /plain}}, upstream: g}}
  - {{match: {{path: /filtered}}, filters: [key], upstream: g}}
  - {{match: {{path: /slow}}, upstream: slow, timeout: 3100ms}}
  - {{match: {{path: /tiny}}, upstream: g, limits: {{request_body_bytes: 1KiB}}}}
  - {{match: {{path: /down}}, upstream: down}}",
            self.address, self.address
        )
    }

    /// The same without filters.
    fn plain_yaml(&self) -> String {
        format!(
            "upstreams:
  g: {{endpoints: [\"http://{}\"], protocol: h2, timeout: 20s}}
  down: {{endpoints: [\"http://127.0.0.1:1\"], protocol: h2, timeout: 20s}}
routes:
  - {{match: {{path: /plain}}, upstream: g}}
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
