//! Several gateways and one store: a rollback by one reaches the others, and nothing is lost while
//! the store cannot be reached.

use std::time::Duration;

use anyhow::Result;
use harness::object_store::ObjectStore;
use harness::redis::Redis;
use harness::wat::state_reporter;
use harness::{Gateway, Setup, wait_until, wait_up_to};
use serde_json::Value;

fn version(number: u32) -> Result<Vec<u8>> {
    state_reporter("", &[&format!("(i32.const {number})")], "")
}

fn start(redis: &Redis) -> Result<Gateway> {
    start_with(&format!("stores: {{shared: {{redis: {{url: \"{}\"}}}}}}", redis.url()), "shared")
}

/// A gateway with these keys, whose filter has this `release.store`.
pub(crate) fn start_with(keys: &str, store: &str) -> Result<Gateway> {
    setup(keys, store)?.start()
}

/// The same before its start.
pub(crate) fn setup(keys: &str, store: &str) -> Result<Setup> {
    let yaml = format!(
        "{keys}\nfilters: {{f: {{source: f.wasm, release: {{steps: [1%, 100%], hold: 1h, store: \"{store}\"}}}}}}\nupstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
    );
    Setup::new(&yaml)?.with("f.wasm", version(1)?)
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

#[test]
fn gateways_share_decisions_through_a_bucket() -> Result<()> {
    let mut store = ObjectStore::start()?;
    let keys = format!("sources: [{{prefix: \"s3://filters/\", {}}}]", store.keys());
    let start = || start_with(&keys, "s3://filters/releases/");
    decisions_pass_through_a_bucket(start, |is_running| if is_running { store.restart() } else { store.stop() })
}

/// Two gateways that `start` makes, and a bucket that `set_running` stops and starts.
pub(crate) fn decisions_pass_through_a_bucket(
    start: impl Fn() -> Result<Gateway>,
    mut set_running: impl FnMut(bool) -> Result<()>,
) -> Result<()> {
    let (one, two) = (start()?, start()?);
    for gateway in [&one, &two] {
        gateway.replace("f.wasm", version(2)?)?;
        wait_state(gateway, "releasing");
    }
    wait_up_to(Duration::from_secs(30), "each gateway sees both", || {
        [&one, &two].iter().all(|gateway| state(gateway)["shared"]["gateways"].as_array().map(Vec::len) == Some(2))
    });
    let location = state(&one)["shared"]["store"].as_str().map(str::to_owned).unwrap_or_default();
    assert!(location.ends_with("://filters/releases/f.release.json"), "{location}");
    assert_eq!(command(&one, "pause")?, 200);
    wait_state(&two, "paused");
    assert_eq!(command(&two, "resume")?, 200);
    wait_state(&one, "releasing");

    // The bucket cannot be reached: each decides alone and says so, and nothing is lost.
    set_running(false)?;
    wait_up_to(Duration::from_secs(40), "both gateways say that they are alone", || {
        [&one, &two].iter().all(|gateway| state(gateway)["shared"]["error"].is_string())
    });
    one.wait_logged("decisions about releases are not shared: this gateway decides alone", 1);
    assert_eq!(command(&one, "rollback")?, 200);
    assert_eq!(one.get("/", &[])?.text(), "1", "in effect at once");
    assert_eq!(state(&two)["state"], "releasing", "nobody could tell it");
    one.signal(rustix::process::Signal::KILL)?;
    let one = one.start_successor()?;
    set_running(true)?;
    wait_state(&two, "rolled_back");

    let began = std::time::Instant::now();
    assert_eq!(command(&two, "promote")?, 200);
    wait_state(&one, "steady");
    println!("a decision reached the other gateway through the bucket after {:?}", began.elapsed());
    assert_eq!(one.get("/", &[])?.text(), "2");
    let history = one.admin("/releases/history?limit=1")?.json();
    assert!(history[0]["why"].as_str().unwrap_or_default().starts_with("gateway "), "{history}");
    Ok(())
}
