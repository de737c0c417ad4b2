//! What an upstream can do wrong, and what a client then sees: an error of the gateway with its reason, or a body that does not end; never a clean end of a cut body.
//!
//! Each fault has an upstream of its own behind one gateway, so that all run side by side.

use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use harness::{Gateway, Setup};

use super::corpus::faults::{Act, FAULTS, INVALID, Want};
use super::strict::Message;
use super::wire::{Peer, Wire};

fn upstream(peer: &Peer) -> String {
    format!("{{endpoints: [\"http://{}\"], timeout: 1s, connect_timeout: 500ms, body_idle_timeout: 1s}}", peer.address)
}

fn script(act: Act) -> Result<Peer> {
    if matches!(act, Act::Refuse) {
        return Peer::nobody();
    }
    Peer::start(move |wire| {
        if let Act::Early { reset } = act {
            return if reset { wire.reset() } else { Ok(()) };
        }
        wire.request()?;
        match act {
            Act::Close(bytes) => wire.send(bytes),
            Act::Reset(bytes) => {
                wire.send(bytes)?;
                wire.reset()
            }
            Act::Stall(bytes) => {
                wire.send(bytes)?;
                wire.until_closed(Duration::from_secs(20)).map(drop)
            }
            Act::Drip(bytes, pause) => wire.drip(bytes, Duration::from_millis(pause)),
            Act::Flood(first, again, times) => {
                wire.send(first)?;
                wire.send(again.repeat(times))?;
                wire.until_closed(Duration::from_secs(20)).map(drop)
            }
            Act::Refuse | Act::Early { .. } => Ok(()),
        }
    })
}

#[test]
fn what_an_upstream_does_wrong_is_not_passed_on() -> Result<()> {
    let peers: Vec<Peer> = FAULTS.iter().map(|fault| script(fault.1)).collect::<Result<_>>()?;
    let gateway = gateway(&peers)?;
    let verdicts: Vec<Result<String>> = std::thread::scope(|scope| {
        let address = gateway.address;
        let run = |index: usize| move || judge(Wire::connect(address)?, index, FAULTS[index].2);
        let running: Vec<_> = (0..FAULTS.len()).map(|index| scope.spawn(run(index))).collect();
        running.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("panicked"))).collect()
    });
    let mut wrong = vec![];
    for ((name, _, want), verdict) in FAULTS.iter().zip(verdicts) {
        match verdict {
            Ok(reaction) => println!("{name:<48} {reaction}"),
            Err(why) => wrong.push(format!("{name:<48} {want:?}: {why:#}")),
        }
    }
    println!("faults: {} cases, {} as they should be", FAULTS.len(), FAULTS.len() - wrong.len());
    assert!(wrong.is_empty(), "{} faults are not handled:\n{}", wrong.len(), wrong.join("\n"));
    harness::wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    Ok(())
}

/// A route `/f0`, `/f1`, … to each peer.
fn gateway(peers: &[Peer]) -> Result<Gateway> {
    let mut yaml = "timeouts: {filters: 50ms}\nupstreams:\n".to_owned();
    let mut routes = "routes:\n".to_owned();
    for (index, peer) in peers.iter().enumerate() {
        yaml.push_str(&format!("  u{index}: {}\n", upstream(peer)));
        routes.push_str(&format!("  - {{match: {{path: /f{index}}}, upstream: u{index}}}\n"));
    }
    Setup::new(&(yaml + &routes))?.level("error").start()
}

fn judge(mut client: Wire, index: usize, want: Want) -> Result<String> {
    client.send(format!("GET /f{index} HTTP/1.1\r\nHost: t.test\r\n\r\n"))?;
    let answer = last_response(&mut client);
    let error = |answer: &Message, status: u16, kinds: &[&str]| -> Result<String> {
        let said = answer.field("proxy-status").unwrap_or_default().to_owned();
        ensure!(answer.status() == status, "status {} {said}", answer.status());
        ensure!(
            kinds.iter().any(|kind| said.contains(&format!("error={kind}"))),
            "proxy-status {said:?}, none of {kinds:?}"
        );
        Ok(format!("{status} {said}"))
    };
    let whole = |answer: &Message, status: u16, body: &str| -> Result<String> {
        ensure!(
            answer.status() == status && answer.body == body.as_bytes(),
            "{:?} {}",
            answer.start,
            answer.body.escape_ascii()
        );
        Ok(format!("{status}, whole"))
    };
    match (want, answer) {
        (Want::Error(status, kinds), answer) => error(&answer?, status, kinds),
        (Want::Whole(status, body), answer) => whole(&answer?, status, body),
        (Want::Lenient(status, body), answer) => {
            let answer = answer?;
            whole(&answer, status, body).or_else(|_| error(&answer, 502, INVALID))
        }
        (Want::Broken, Ok(answer)) => {
            ensure!(
                matches!(answer.status(), 502 | 504),
                "a clean end: {:?} {}",
                answer.start,
                answer.body.escape_ascii()
            );
            Ok(answer.status().to_string())
        }
        (Want::Broken, Err(why)) => {
            ensure!(client.closed, "the connection is still open: {why:#}");
            Ok("broken off".to_owned())
        }
    }
}

/// The final response.
fn last_response(client: &mut Wire) -> Result<Message> {
    for _ in 0..100 {
        let message = client.response("GET")?;
        if message.status() >= 200 {
            return Ok(message);
        }
    }
    Err(anyhow!("100 interim responses and no end"))
}
