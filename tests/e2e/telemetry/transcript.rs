//! The commands of docs/how-to/find-the-cause.md lead to the causes that the page shows.
//!
//! The page's addresses are replaced by those of a real gateway, and its commands are run by a
//! shell. Each line of the page's output must occur in the real one, in this order; `…` stands for
//! any text. `$ID` is the id in the response before.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::tls::Authority;
use harness::wat::{filter, with_manifest};
use harness::{Gateway, Setup, Upstream, binary, refusing_address, repository};

/// The commands that lead from a failure to its cause, at most.
const COMMANDS_MAX: usize = 3;

/// A section of the page: its title, and each command with the lines of its output.
struct Section {
    title: String,
    commands: Vec<(String, Vec<String>)>,
}

fn sections() -> Result<Vec<Section>> {
    let text = fs::read_to_string(repository().join("docs/how-to/find-the-cause.md"))?;
    let mut sections: Vec<Section> = vec![];
    let mut is_inside = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push(Section { title: title.to_owned(), commands: vec![] });
        } else if line.starts_with("```") {
            is_inside = line == "```console";
        } else if is_inside {
            let section = sections.last_mut().context("a transcript before the first section")?;
            match (line.strip_prefix("$ "), section.commands.last_mut()) {
                (Some(command), _) => section.commands.push((command.to_owned(), vec![])),
                (None, Some((_, output))) => output.push(line.to_owned()),
                (None, None) => {}
            }
        }
    }
    sections.retain(|section| !section.commands.is_empty());
    Ok(sections)
}

/// Whether a line is what the page shows, with any text for each `…`.
fn matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut is_open = false;
    for part in parts {
        is_open = part.is_empty();
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    is_open || rest.trim_end().is_empty()
}

#[test]
fn the_transcripts_of_the_page_are_true() -> Result<()> {
    let (upstream, ca) = (Upstream::start()?, Authority::new("ca")?);
    let (plain, _endpoint) = plain_gateway(&upstream, &ca)?;
    let secure = secure_gateway(&ca)?;
    let sections = sections()?;
    assert_eq!(sections.len(), 7, "trap, deadline, refused, slow, TLS, 421, 413");
    for Section { title, commands } in &sections {
        let gateway = if title.starts_with("421") { &secure } else { &plain };
        ensure!(commands.len() <= COMMANDS_MAX, "{title}: {} commands", commands.len());
        let mut id = String::new();
        for (command, expected) in commands {
            let output = run(command, gateway, &upstream, &id)?;
            if let Some(found) = output.lines().find_map(|line| line.strip_prefix("x-request-id: ")) {
                id = found.trim().to_owned();
            }
            let mut lines = output.lines();
            for line in expected {
                let line = line.replace("127.0.0.1:8080", &gateway.address.to_string());
                ensure!(
                    lines.any(|real| matches(&line, real)),
                    "{title}: $ {command}\n{line}\nis not in the output, or not after the lines before it:\n{output}"
                );
            }
        }
    }
    Ok(())
}

fn run(command: &str, gateway: &Gateway, upstream: &Upstream, id: &str) -> Result<String> {
    let ctl = format!("{} ctl --admin {}", binary().display(), gateway.admin);
    let command = command
        .replace("witgate ctl", &ctl)
        .replace("127.0.0.1:8080", &gateway.address.to_string())
        .replace("127.0.0.1:9901", &gateway.admin.to_string())
        .replace(":8443", &format!(":{}", gateway.address.port()));
    let output = Command::new("bash")
        .args(["-c", &command])
        .current_dir(gateway.path(""))
        .env("ID", id)
        .env("ENDPOINT", upstream.address.to_string())
        .output()?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// A gateway for all sections but one, and the endpoint with a certificate that it does not trust.
fn plain_gateway(upstream: &Upstream, ca: &Authority) -> Result<(Gateway, Gateway)> {
    let echo = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";
    let issued = ca.issue(&["127.0.0.1"])?;
    let endpoint = Setup::new(echo)?
        .with("0.pem", &issued.certificate)?
        .with("0.key", &issued.key)?
        .listener("tls: {certificates: [{certificate: 0.pem, key: 0.key}]}")
        .start()?;
    let yaml = format!(
        "timeouts: {{filters: 60ms}}\nlimits: {{request_body_bytes: 64KiB}}\n\
         filters: {{checks: {{source: checks.wasm, timeout: 20ms}}, endless: {{source: endless.wasm, timeout: 20ms}}}}\n\
         upstreams:\n\
         \x20 u: {{endpoints: [\"http://{}\"], timeout: 200ms}}\n\
         \x20 refused: {{endpoints: [\"http://{}\"]}}\n\
         \x20 tls: {{endpoints: [\"https://{}\"], tls: {{ca: other.pem}}}}\n\
         routes:\n\
         - {{name: trap, match: {{path: /trap}}, filters: [checks], upstream: u}}\n\
         - {{name: deadline, match: {{path: /deadline}}, filters: [endless], upstream: u}}\n\
         - {{name: refused, match: {{path: /refused}}, upstream: refused}}\n\
         - {{name: slow, match: {{path: /delay}}, upstream: u}}\n\
         - {{name: tls, match: {{path: /tls}}, upstream: tls}}\n\
         - {{name: upload, match: {{path: /upload}}, upstream: u}}\n",
        upstream.address,
        refusing_address()?,
        endpoint.address,
    );
    let checks = with_manifest(filter("unreachable")?, r#"{"name":"checks","version":"2.1.0","request":{}}"#);
    let gateway = Setup::new(&yaml)?
        .with("checks.wasm", checks)?
        .with("endless.wasm", filter("(loop (br 0)) (i32.const 0)")?)?
        .with("other.pem", Authority::new("other")?.pem())?
        .start()?;
    Ok((gateway, endpoint))
}

/// A gateway with a certificate for each of two hosts.
fn secure_gateway(ca: &Authority) -> Result<Gateway> {
    let (a, b) = (ca.issue(&["a.example"])?, ca.issue(&["b.example"])?);
    Setup::new("upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]")?
        .with("ca.pem", ca.pem())?
        .with("a.pem", a.certificate)?
        .with("a.key", a.key)?
        .with("b.pem", b.certificate)?
        .with("b.key", b.key)?
        .listener("tls: {certificates: [{certificate: a.pem, key: a.key}, {certificate: b.pem, key: b.key}]}")
        .start()
}
