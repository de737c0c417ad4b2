//! `witgate tap` and `witgate top`: exchanges and numbers of a running gateway in a terminal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use harness::{Gateway, Setup, Upstream, binary, wait_until};
use serde_json::Value;

/// A running `witgate tap`. Drop ends it.
struct Tap {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Tap {
    fn start(gateway: &Gateway, arguments: &[&str]) -> Result<Self> {
        let before = gateway.logged("an operator reads exchanges").len();
        let mut child = Command::new(binary())
            .args(["tap", "--admin", &gateway.admin.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        gateway.wait_logged("an operator reads exchanges", before + 1);
        let lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        Ok(Self { child, lines })
    }

    fn line(&mut self) -> Result<String> {
        self.lines.next().context("the tap ended")?.context("no line")
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gateway(upstream: &Upstream) -> Result<Gateway> {
    let yaml = format!(
        "upstreams: {{u: {}}}\nroutes: [{{name: api, match: {{path: /status}}, upstream: u}}, {{name: other, upstream: u}}]",
        upstream.yaml()
    );
    Setup::new(&yaml)?.start()
}

#[test]
fn a_tap_shows_the_exchanges_that_it_selects() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway(&upstream)?;
    let mut json = Tap::start(&gateway, &["--route", "api", "--status", "5xx", "--json"])?;
    let mut text = Tap::start(&gateway, &["--status", "404,500-599", "--headers"])?;
    let fields = ["authorization: Bearer s3cret", "x-session-id: s3cret", "x-plain: p\u{9b}2J"];
    for path in ["/status/200", "/reset", "/status/503"] {
        gateway.get(path, &fields)?;
    }
    let line = json.line()?;
    let exchange: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    assert_eq!((&exchange["status"], &exchange["path"]), (&503.into(), &"/status/503".into()), "{line}");
    assert_eq!(exchange["headers"]["authorization"], "redacted");
    assert!(exchange["what"].as_str().is_some_and(|what| what.contains("sent this status")), "{line}");
    let shown: Vec<String> = (0..12).map(|_| text.line()).collect::<Result<_>>()?;
    let shown = shown.join("\n");
    for part in ["502 GET test/reset ", "503 GET test/status/503 ", "(upstream-closed)", "\n    x-plain: p"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(!format!("{line}{shown}").contains("s3cret") && !shown.contains('\u{9b}'), "{shown}");
    drop((json, text));
    wait_until("the exchanges have no readers", || {
        // A reader that has gone is found when something is written to it.
        let _ = gateway.get("/status/503", &[]);
        (0..8).map(|_| begin(&gateway, "")).collect::<Result<Vec<_>>>().is_ok()
    });
    Ok(())
}

/// Begins to read `/tap` and returns the stream behind the head of a 200.
fn begin(gateway: &Gateway, query: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(gateway.admin)?;
    write!(stream, "GET /tap?{query} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        anyhow::ensure!(stream.read_line(&mut head)? > 0, "{head}");
    }
    anyhow::ensure!(head.starts_with("HTTP/1.0 200"), "{head}");
    Ok(stream)
}

#[test]
fn readers_are_bounded_and_slow_ones_are_told_what_they_missed() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway(&upstream)?;
    let mut slow = begin(&gateway, "")?;
    let readers = (0..7).map(|_| begin(&gateway, "status=599")).collect::<Result<Vec<_>>>()?;
    let refused = begin(&gateway, "").err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.starts_with("HTTP/1.0 429"), "{refused}");
    drop(readers);
    // More than the queue and the buffers of two sockets hold.
    let (mut client, field) = (gateway.client()?, format!("x-long: {}", "x".repeat(500)));
    let fields = vec![&*field; 60];
    for _ in 0..600 {
        assert_eq!(client.get(&format!("/{}", "p".repeat(2000)), &fields)?.status, 200);
    }
    let mut found = String::new();
    while !found.contains("\"lost\":") {
        found.clear();
        anyhow::ensure!(slow.read_line(&mut found)? > 0, "the stream ended");
    }
    let lost: Value = serde_json::from_str(&found)?;
    assert!(lost["lost"].as_u64().is_some_and(|lost| lost > 0), "{found}");
    Ok(())
}

#[test]
fn a_tap_needs_what_a_command_needs() -> Result<()> {
    let yaml = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";
    let gateway = Setup::new(yaml)?.admin("address: \"127.0.0.1:0\", token: 0123456789abcdef").start()?;
    for (fields, status) in [
        ("host: localhost", "401"),
        ("host: localhost\r\nauthorization: Bearer 0123456789abcdef", "200"),
        ("host: localhost\r\nauthorization: Bearer 0123456789abcdef\r\norigin: http://evil.test", "403"),
    ] {
        let mut stream = TcpStream::connect(gateway.admin)?;
        write!(stream, "GET /tap HTTP/1.0\r\n{fields}\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        assert_eq!(String::from_utf8_lossy(&head), format!("HTTP/1.0 {status}"), "{fields}");
    }
    Ok(())
}

#[test]
fn top_prints_routes_filters_and_endpoints() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway(&upstream)?;
    assert_eq!(gateway.get("/status/503", &[])?.status, 503);
    let output = Command::new(binary()).args(["top", "--once", "--admin", &gateway.admin.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["ROUTE", "\napi ", "\nother ", "UPSTREAM", &upstream.address.to_string(), "in service", "requests/s"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    Ok(())
}
