//! Several gateways and one store: a rollback by one reaches the others, and nothing is lost while
//! the store cannot be reached.

use std::time::Duration;

use anyhow::Result;
use harness::redis::Redis;
use harness::wat::state_reporter;
use harness::{Gateway, Setup, wait_until, wait_up_to};
use serde_json::Value;

fn version(number: u32) -> Result<Vec<u8>> {
    state_reporter("", &[&format!("(i32.const {number})")], "")
}

fn start(redis: &Redis) -> Result<Gateway> {
    let yaml = format!(
        "stores: {{shared: {{redis: {{url: \"{}\"}}}}}}\nfilters: {{f: {{source: f.wasm, release: {{steps: [1%, 100%], hold: 1h, store: shared}}}}}}\nupstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{filters: [f], upstream: echo}}]",
        redis.url()
    );
    Setup::new(&yaml)?.with("f.wasm", version(1)?)?.start()
}

fn state(gateway: &Gateway) -> Value {
    gateway.admin("/releases").map(|response| response.json()[0].clone()).unwrap_or_default()
}

fn command(gateway: &Gateway, command: &str) -> Result<u16> {
    Ok(gateway.admin_client()?.send("POST", &format!("/releases/f/{command}"), &[], b"")?.status)
}

fn wait_state(gateway: &Gateway, state_word: &str) {
    wait_up_to(Duration::from_secs(20), &format!("the release is {state_word}"), || {
        state(gateway)["state"] == state_word
    });
}

#[test]
fn a_decision_of_one_gateway_reaches_the_others() -> Result<()> {
    let redis = Redis::start()?;
    let (one, two) = (start(&redis)?, start(&redis)?);
    for gateway in [&one, &two] {
        gateway.replace("f.wasm", version(2)?)?;
        wait_state(gateway, "releasing");
    }
    wait_until("each gateway sees both", || {
        [&one, &two].iter().all(|gateway| state(gateway)["shared"]["gateways"].as_array().map(Vec::len) == Some(2))
    });
    assert_eq!(command(&one, "pause")?, 200);
    wait_state(&two, "paused");
    assert_eq!(command(&two, "resume")?, 200);
    wait_state(&one, "releasing");
    let began = std::time::Instant::now();
    assert_eq!(command(&one, "rollback")?, 200);
    wait_state(&two, "rolled_back");
    println!("a rollback reached the other gateway after {:?}", began.elapsed());
    let history = two.admin("/releases/history?limit=1")?.json();
    assert!(history[0]["who"].as_str().unwrap_or_default().contains("operator (loopback"), "{history}");
    assert!(history[0]["why"].as_str().unwrap_or_default().starts_with("gateway "), "{history}");
    assert_eq!(command(&two, "promote")?, 200);
    wait_state(&one, "steady");
    assert_eq!(one.get("/", &[])?.text(), "2");
    Ok(())
}

#[test]
fn a_decision_waits_for_a_store_that_cannot_be_reached() -> Result<()> {
    let mut redis = Redis::start()?;
    let (one, two) = (start(&redis)?, start(&redis)?);
    for gateway in [&one, &two] {
        gateway.replace("f.wasm", version(2)?)?;
        wait_state(gateway, "releasing");
    }
    redis.kill()?;
    wait_until("both gateways say that they are alone", || {
        [&one, &two].iter().all(|gateway| state(gateway)["shared"]["error"].is_string())
    });
    assert_eq!(command(&one, "rollback")?, 200);
    assert_eq!(one.get("/", &[])?.text(), "1");
    // The decision survives the process that took it.
    one.signal(rustix::process::Signal::KILL)?;
    let one = one.start_successor()?;
    assert_eq!(state(&two)["state"], "releasing", "nobody could tell it");
    redis.restart()?;
    wait_state(&two, "rolled_back");
    assert_eq!(state(&one)["state"], "rolled_back");
    one.wait_logged("decisions about releases are shared", 1);
    Ok(())
}
