//! A client that closes its sending direction after its request (RFC 9112, section 9.6):
//! `listeners[].half_close`.

use std::net::Shutdown;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Gateway, Setup};

use super::raw::{RawConnection, ScriptedUpstream};

const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An upstream that answers `/slow` after two seconds, and everything else at once.
fn upstream() -> Result<ScriptedUpstream> {
    ScriptedUpstream::start(|connection| {
        loop {
            if connection.read_request()?.target() == "/slow" {
                std::thread::sleep(Duration::from_secs(2));
            }
            connection.send(FINAL)?;
        }
    })
}

fn gateway(upstream: &ScriptedUpstream, listener: &str) -> Result<Gateway> {
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 10s}}, echo: {{builtin: echo}}}}\nroutes: [{{match: {{path: \
         /echo}}, upstream: echo}}, {{upstream: u}}]",
        upstream.address
    );
    Setup::new(&yaml)?.listener(listener).start()
}

/// The status that a client gets which sends these bytes and then FIN; 0 if the connection ends.
fn status(gateway: &Gateway, bytes: &str) -> Result<Vec<u16>> {
    let mut client = RawConnection::connect(gateway.address)?;
    client.send(bytes)?;
    client.stream.shutdown(Shutdown::Write)?;
    client.wait_closed(Duration::from_secs(5))?;
    let mut statuses = vec![];
    while !client.bytes.is_empty() {
        statuses.push(client.read_response("GET")?.status());
    }
    Ok(statuses)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: t.test\r\n\r\n")
}

#[test]
fn a_fast_answer_reaches_a_client_that_closed_its_direction() -> Result<()> {
    let upstream = upstream()?;
    for listener in ["half_close: cancel", "half_close: serve"] {
        let gateway = gateway(&upstream, listener)?;
        for _ in 0..20 {
            ensure!(status(&gateway, &get("/echo"))? == [200], "{listener}");
        }
        ensure!(status(&gateway, &get("/echo").repeat(3))? == [200, 200, 200], "pipelined, {listener}");
        let post = "POST /echo HTTP/1.1\r\nHost: t.test\r\nContent-Length: 5\r\n\r\nhello";
        ensure!(status(&gateway, post)? == [200], "with a body, {listener}");
    }
    Ok(())
}

#[test]
fn the_setting_decides_about_slow_answers() -> Result<()> {
    let upstream = upstream()?;
    ensure!(status(&gateway(&upstream, "half_close: serve")?, &get("/slow"))? == [200]);
    let cancels = gateway(&upstream, "half_close: cancel")?;
    ensure!(status(&cancels, &get("/slow"))?.is_empty());
    // How many depends on the machine: the upstream has 50 ms.
    let answered = (0..10).filter(|_| status(&cancels, &get("/")).is_ok_and(|statuses| statuses == [200])).count();
    ensure!(answered > 0, "an instant upstream answers in time");
    Ok(())
}
