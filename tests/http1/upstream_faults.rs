//! Faults of an upstream, and what the client receives: an error of the gateway with its reason, or
//! a truncated body. A truncated body never gets a clean end.
//!
//! Each fault has its own upstream behind one gateway, so all faults run in parallel.

use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use harness::strict_http1::Message;
use harness::{Gateway, Setup};

use super::corpus::upstream_faults::{Expect, FAULTS, Fault, INVALID};
use super::raw::{RawConnection, ScriptedUpstream};

fn script(fault: Fault) -> Result<ScriptedUpstream> {
    if matches!(fault, Fault::Refuse) {
        return ScriptedUpstream::refusing();
    }
    ScriptedUpstream::start(move |connection| {
        if let Fault::EndBeforeReading { reset } = fault {
            return if reset { connection.reset() } else { Ok(()) };
        }
        connection.read_request()?;
        match fault {
            Fault::Close(bytes) => connection.send(bytes),
            Fault::Reset(bytes) => {
                connection.send(bytes)?;
                connection.reset()
            }
            Fault::Stall(bytes) => {
                connection.send(bytes)?;
                connection.wait_closed(Duration::from_secs(20)).map(drop)
            }
            Fault::SendBytewise(bytes, pause) => connection.send_bytewise(bytes, Duration::from_millis(pause)),
            Fault::Repeat(first, again, times) => {
                connection.send(first)?;
                connection.send(again.repeat(times))?;
                connection.wait_closed(Duration::from_secs(20)).map(drop)
            }
            Fault::Refuse | Fault::EndBeforeReading { .. } => Ok(()),
        }
    })
}

#[test]
fn upstream_faults_become_gateway_errors_or_truncated_bodies() -> Result<()> {
    let upstreams: Vec<ScriptedUpstream> = FAULTS.iter().map(|fault| script(fault.1)).collect::<Result<_>>()?;
    let gateway = gateway(&upstreams)?;
    let verdicts: Vec<Result<String>> = std::thread::scope(|scope| {
        let address = gateway.address;
        let run = |index: usize| move || judge(RawConnection::connect(address)?, index, FAULTS[index].2);
        let running: Vec<_> = (0..FAULTS.len()).map(|index| scope.spawn(run(index))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("the test thread panicked"))).collect()
    });
    let mut failures = vec![];
    for ((name, _, expect), verdict) in FAULTS.iter().zip(verdicts) {
        match verdict {
            Ok(reaction) => println!("{name:<60} {reaction}"),
            Err(why) => failures.push(format!("{name:<60} {expect:?}: {why:#}")),
        }
    }
    println!("upstream faults: {} cases, {} passed", FAULTS.len(), FAULTS.len() - failures.len());
    assert!(failures.is_empty(), "{} faults are handled incorrectly:\n{}", failures.len(), failures.join("\n"));
    harness::wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    Ok(())
}

/// A gateway with a route `/f0`, `/f1`, … to each upstream.
fn gateway(upstreams: &[ScriptedUpstream]) -> Result<Gateway> {
    let mut yaml = "timeouts: {filters: 50ms}\nupstreams:\n".to_owned();
    let mut routes = "routes:\n".to_owned();
    for (index, upstream) in upstreams.iter().enumerate() {
        yaml.push_str(&format!(
            "  u{index}: {{endpoints: [\"http://{}\"], timeout: 1s, connect_timeout: 500ms, body_idle_timeout: 1s}}\n",
            upstream.address
        ));
        routes.push_str(&format!("  - {{match: {{path: /f{index}}}, upstream: u{index}}}\n"));
    }
    Setup::new(&(yaml + &routes))?.level("error").start()
}

/// Sends a request to one upstream. Returns a description of the reaction, or why it is wrong.
fn judge(mut client: RawConnection, index: usize, expect: Expect) -> Result<String> {
    client.send(format!("GET /f{index} HTTP/1.1\r\nHost: t.test\r\n\r\n"))?;
    let response = final_response(&mut client);
    match (expect, response) {
        (Expect::GatewayError(status, types), response) => check_error(&response?, status, types),
        (Expect::Complete(status, body), response) => check_complete(&response?, status, body),
        (Expect::CompleteOr502(status, body), response) => {
            let response = response?;
            check_complete(&response, status, body).or_else(|_| check_error(&response, 502, INVALID))
        }
        (Expect::Truncated, Ok(response)) => {
            ensure!(
                matches!(response.status(), 502 | 504),
                "the response has a clean end: {:?} {}",
                response.start,
                response.body.escape_ascii()
            );
            Ok(response.status().to_string())
        }
        (Expect::Truncated, Err(why)) => {
            ensure!(client.closed, "the connection is still open: {why:#}");
            Ok("truncated".to_owned())
        }
    }
}

fn check_error(response: &Message, status: u16, types: &[&str]) -> Result<String> {
    let proxy_status = response.field("proxy-status").unwrap_or_default().to_owned();
    ensure!(response.status() == status, "status {} {proxy_status}", response.status());
    ensure!(
        types.iter().any(|kind| proxy_status.contains(&format!("error={kind}"))),
        "proxy-status {proxy_status:?} has none of {types:?}"
    );
    Ok(format!("{status} {proxy_status}"))
}

fn check_complete(response: &Message, status: u16, body: &str) -> Result<String> {
    ensure!(
        response.status() == status && response.body == body.as_bytes(),
        "{:?} {}",
        response.start,
        response.body.escape_ascii()
    );
    Ok(format!("{status}, complete"))
}

/// Skips interim responses.
fn final_response(client: &mut RawConnection) -> Result<Message> {
    for _ in 0..100 {
        let message = client.read_response("GET")?;
        if message.status() >= 200 {
            return Ok(message);
        }
    }
    Err(anyhow!("100 interim responses and no final response"))
}
