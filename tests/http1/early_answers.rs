//! An answer before the end of a request's body reaches the client (RFC 9112, section 9.6; RFC
//! 9113, section 8.1): real clients that post 8 MB and are refused.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup, repository, wat};

use super::raw::RawConnection;

/// How often each client posts to each path. `WITGATE_EARLY_ANSWERS=100` for a measurement.
fn repetitions() -> usize {
    std::env::var("WITGATE_EARLY_ANSWERS").ok().and_then(|count| count.parse().ok()).unwrap_or(3)
}

/// A route that refuses by a limit, by a filter, and by its own response; any other path has none.
fn gateway() -> Result<Gateway> {
    let yaml = "filters: {deny: {source: deny.wasm}}\nupstreams: {u: {builtin: echo}}\nroutes:\n  \
                - {match: {path: /limit}, limits: {request_body_bytes: 1KiB}, upstream: u}\n  \
                - {match: {path: /filter}, filters: [deny], upstream: u}\n  \
                - {match: {path: /respond}, respond: {status: 503, body: no}}";
    Setup::new(yaml)?.with("deny.wasm", wat::responder(401, None, "no")?)?.start()
}

const REFUSALS: [(&str, &str); 4] = [("/limit", "413"), ("/filter", "401"), ("/none", "404"), ("/respond", "503")];

/// Runs a client for each path, and checks that it saw every status.
fn each_sees_the_status(client: impl Fn(SocketAddr, &str, usize) -> Command) -> Result<()> {
    let (gateway, count) = (gateway()?, repetitions());
    for (path, status) in REFUSALS {
        let mut command = client(gateway.address, path, count);
        let name = format!("{:?}", command.get_program());
        let output = command.output().with_context(|| format!("{name} does not run: install it"))?;
        let seen = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let right = seen.lines().filter(|line| *line == status).count();
        ensure!(right == count, "{name} {path}: {right} of {count} saw {status}:\n{seen}{errors}");
    }
    Ok(())
}

/// A script of tests/clients and its arguments.
fn script(program: &[&str], name: &str, address: SocketAddr, path: &str, count: usize) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(repository().join("tests/clients").join(name));
    command.args([address.to_string(), path.into(), count.to_string()]);
    command
}

fn curl(version: &'static str) -> impl Fn(SocketAddr, &str, usize) -> Command {
    move |address, path, count| {
        // One process for all repetitions; each request has a new connection.
        let mut command = Command::new("sh");
        let post = format!(
            "head -c 8000000 /dev/zero | curl -sS {version} -m 20 -o /dev/null -w '%{{http_code}}\\n' -H 'expect:' \
             --data-binary @- http://{address}{path}"
        );
        command.args(["-c", &format!("for i in $(seq {count}); do {post}; done")]);
        command
    }
}

#[test]
fn curl_over_http1_sees_the_status() -> Result<()> {
    each_sees_the_status(curl("--http1.1"))
}

#[test]
fn curl_over_http2_sees_the_status() -> Result<()> {
    each_sees_the_status(curl("--http2-prior-knowledge"))
}

#[test]
fn python_sees_the_status() -> Result<()> {
    each_sees_the_status(|address, path, count| script(&["python3"], "post.py", address, path, count))
}

#[test]
fn node_sees_the_status() -> Result<()> {
    for version in ["h1", "h2"] {
        each_sees_the_status(|address, path, count| {
            let mut command = script(&["node"], "post.mjs", address, path, count);
            command.arg(version);
            command
        })
        .context(version)?;
    }
    Ok(())
}

#[test]
fn go_sees_the_status() -> Result<()> {
    for version in ["h1", "h2"] {
        each_sees_the_status(|address, path, count| {
            let mut command = script(&["go", "run"], "post.go", address, path, count);
            command.arg(version);
            command
        })
        .context(version)?;
    }
    Ok(())
}

#[test]
fn a_client_that_never_stops_is_cut() -> Result<()> {
    let gateway = gateway()?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send("POST /none HTTP/1.1\r\nHost: t.test\r\nContent-Length: 1000000000\r\n\r\n")?;
    let (block, begin, mut sent) = (vec![b'x'; 64 << 10], Instant::now(), 0_usize);
    while client.send(&block).is_ok() {
        sent += block.len();
        ensure!(sent < 200 << 20, "the gateway read 200 MiB of a refused body");
        ensure!(begin.elapsed() < Duration::from_secs(20), "the gateway lingers for too long");
    }
    ensure!(sent > 8 << 20, "only {sent} bytes were read");
    Ok(())
}
