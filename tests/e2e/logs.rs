//! The gateway's log: a reader that does not read, repeated failures, the last lines, and JSON on
//! standard output.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use harness::{Setup, refusing_address, repository, wait_until};
use rustix::process::Signal;

const ECHO: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";

#[test]
fn a_full_pipe_stalls_no_request() -> Result<()> {
    let yaml = ECHO.replace("{upstream: echo}", "{match: {path: /only}, upstream: echo}");
    let gateway = Setup::new(&yaml)?.workers(1).unread_log().start()?;
    let mut client = gateway.client()?;
    let path = format!("/{}", "x".repeat(16 << 10));
    // At the level of the harness, each such request has a line with its path.
    wait_until("lines are dropped and counted", || {
        let answered = (0..50).all(|_| client.get(&path, &[]).is_ok_and(|response| response.status == 404));
        assert!(answered, "a request was not answered");
        gateway.metric("witgate_log_lines_dropped_total").is_ok_and(|lines| lines > 0.0)
    });
    Ok(())
}

#[test]
fn failures_of_an_endpoint_that_repeat_are_logged_as_a_count() -> Result<()> {
    let upstreams =
        format!("upstreams: {{u: {{endpoints: [\"http://{}\"], outlier: {{failures: 1000}}}}}}", refusing_address()?);
    let gateway = Setup::new(&format!("{upstreams}\nroutes: [{{upstream: u}}]"))?.start()?;
    let mut client = gateway.client()?;
    let mut requests = 0;
    wait_until("a line says how many lines were suppressed", || {
        requests += 1;
        client.get("/", &[]).is_ok_and(|response| response.status >= 500)
            && gateway.logged("an exchange failed").iter().any(|line| line.contains("\"suppressed\""))
    });
    let lines = gateway.logged("an exchange failed").len();
    assert!(lines * 2 < requests, "{lines} lines for {requests} requests");
    Ok(())
}

#[test]
fn the_last_lines_of_a_drain_are_written() -> Result<()> {
    let mut gateway = Setup::new(ECHO)?.start()?;
    gateway.signal(Signal::TERM)?;
    assert!(gateway.wait(Duration::from_secs(10))?.success());
    gateway.wait_logged("\"message\":\"drained\"", 1);
    Ok(())
}

#[test]
fn standard_output_is_json_if_the_log_is() -> Result<()> {
    let setup = Setup::new(ECHO)?;
    let mut command = Command::new(repository().join("target/release/witgate"));
    command.args(["run", "--config"]).arg(setup.write()?).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(process.stdout.take().unwrap()));
    let mut messages = vec![];
    while messages.last().is_none_or(|message| message != "ready") {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap()?)?;
        messages.push(line["message"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(messages, ["listening", "listening", "ready"]);
    process.kill()?;
    process.wait()?;
    Ok(())
}
