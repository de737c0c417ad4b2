//! The shadow of a release: a new version gets the input of live calls, its differences are found
//! and described, and it changes nothing: no exchange, no stored value.

use anyhow::{Result, ensure};
use harness::wat::{component, header_setter, order_marker};
use harness::{Client, Gateway, Setup, wait_until};
use serde_json::Value;

/// A filter that adds 1 to a stored counter and answers with the status 200 and the sum.
/// `instructions` make its code differ.
fn counter(instructions: &str) -> Result<Vec<u8>> {
    // Address 16 holds the key, 64 the result of `increment`, 128 that of the handler.
    let wat = format!(
        r#"(module
          (import "witgate:gateway/keyvalue@0.1.0" "increment" (func $increment (param i32 i32 i32 i32 i32)))
          (memory (export "memory") 1)
          (data (i32.const 16) "k")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
          (func (export "witgate:gateway/request-handler@0.1.0#handle-request") (result i32)
            {instructions}
            (call $increment (i32.const 16) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 64))
            (i32.store8 (i32.const 132) (i32.const 1))
            (i32.store16 (i32.const 136) (i32.add (i32.const 200) (i32.load (i32.const 68))))
            (i32.const 128)))"#
    );
    component("import keyvalue; include request-filter;", &wat)
}

fn start(first: Vec<u8>, release: &str) -> Result<Gateway> {
    let yaml = format!(
        "filters: {{f: {{source: f.wasm, timeout: 400ms, capabilities: [keyvalue], release: {release}}}}}\nupstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
    );
    Setup::new(&yaml)?.with("f.wasm", first)?.start()
}

fn state(gateway: &Gateway) -> Value {
    gateway.admin("/releases").map(|response| response.json()[0].clone()).unwrap_or_default()
}

fn release(gateway: &Gateway, version: &[u8]) -> Result<()> {
    gateway.replace("f.wasm", version)?;
    wait_until("the shadow runs", || state(gateway)["release"]["shadow"].is_object());
    Ok(())
}

/// Sends requests until the release is in another state than `releasing`.
fn send_while_releasing(gateway: &Gateway, check: impl Fn(&mut Client) -> Result<()>) -> Result<Value> {
    let mut client = gateway.client()?;
    for _ in 0..200 {
        for _ in 0..10 {
            check(&mut client)?;
        }
        let state = state(gateway);
        if state["state"] != "releasing" {
            return Ok(state);
        }
    }
    anyhow::bail!("the release goes on: {}", state(gateway))
}

#[test]
fn a_difference_in_one_header_is_found_in_words() -> Result<()> {
    let gateway = start(
        header_setter("x-a", "1", "")?,
        "{hold: 1h, shadow: {share: 100%}, gates: {differences: 5%, requests: 20}}",
    )?;
    release(&gateway, &header_setter("x-a", "2", "")?)?;
    let state = send_while_releasing(&gateway, |client| {
        let text = client.get("/", &[])?.text();
        ensure!(text.contains("x-a") && !text.contains("\"2\""), "the shadow is never applied: {text}");
        Ok(())
    })?;
    let words = "request: header x-a: \"1\" in the version in service, \"2\" in the new one";
    let verdict = state["verdict"].as_str().unwrap_or_default();
    assert!(
        verdict.contains("compared exchanges differ (100.00%); 5% may differ") && verdict.contains(words),
        "{verdict}"
    );
    assert_eq!(state["state"], "rolled_back");
    assert!(gateway.metric("witgate_release_shadow_exchanges_total{filter=\"f\",result=\"different\"}")? >= 2.0);
    Ok(())
}

#[test]
fn both_phases_are_compared_and_samples_show_both_journals() -> Result<()> {
    let gateway = start(order_marker("a", "")?, "{hold: 1h, shadow: {share: 100%}}")?;
    release(&gateway, &order_marker("b", "")?)?;
    let mut client = gateway.client()?;
    wait_until("a sample", || {
        assert_eq!(client.get("/", &[]).map(|response| response.status).ok(), Some(200));
        state(&gateway)["release"]["shadow"]["samples"][0].is_object()
    });
    let shadow = &state(&gateway)["release"]["shadow"];
    assert_eq!(shadow["compared"], shadow["different"], "{shadow}");
    let sample = &shadow["samples"][0];
    assert_eq!(sample["live"][0], "request: header x-order: \"a\"", "{sample}");
    assert_eq!(sample["shadow"][1], "response: header x-order: \"b\"", "{sample}");
    assert_eq!(sample["differences"].as_array().map(Vec::len), Some(2), "{sample}");
    assert_eq!(state(&gateway)["state"], "releasing", "without `gates.differences` they only inform");
    Ok(())
}

#[test]
fn a_shadow_stores_nothing_and_sees_what_the_live_call_saw() -> Result<()> {
    let gateway = start(counter("")?, "{hold: 1h, shadow: {share: 100%}}")?;
    release(&gateway, &counter("(drop (i32.const 7))")?)?;
    let mut client = gateway.client()?;
    for sum in 1..=40 {
        assert_eq!(client.get("/", &[])?.status, 200 + sum, "only live calls count");
    }
    wait_until("all exchanges are compared", || state(&gateway)["release"]["shadow"]["compared"] == 40);
    let shadow = state(&gateway)["release"]["shadow"].clone();
    assert_eq!((&shadow["different"], &shadow["dropped"]), (&0.into(), &0.into()), "{shadow}");
    Ok(())
}

#[test]
fn a_shadow_that_traps_is_rolled_back_and_no_exchange_fails() -> Result<()> {
    let gateway =
        start(header_setter("x-a", "1", "")?, "{hold: 1h, shadow: {share: 50%}, gates: {errors: 5%, requests: 20}}")?;
    release(&gateway, &header_setter("x-a", "1", "unreachable")?)?;
    let state = send_while_releasing(&gateway, |client| {
        ensure!(client.get("/", &[])?.status == 200);
        Ok(())
    })?;
    assert!(state["verdict"].as_str().unwrap_or_default().contains("requests failed (100.00%)"), "{state}");
    Ok(())
}

#[test]
fn an_equal_version_goes_on_to_its_first_share() -> Result<()> {
    let gateway = start(
        header_setter("x-a", "1", "")?,
        "{steps: [100%], hold: 1h, shadow: {share: 100%, hold: 100ms}, gates: {requests: 20, latency_ratio: 1000, differences: 0%}}",
    )?;
    release(&gateway, &header_setter("x-a", "1", "(drop (i32.const 7))")?)?;
    let mut client = gateway.client()?;
    wait_until("the second step", || {
        assert_eq!(client.get("/", &[]).map(|response| response.status).ok(), Some(200));
        state(&gateway)["release"]["step"] == 2
    });
    assert_eq!(state(&gateway)["release"]["share"], 1.0);
    let history = gateway.admin("/releases/history?limit=1")?.json();
    assert!(history[0]["why"].as_str().unwrap_or_default().contains("compared exchanges differ (0.00%)"), "{history}");
    Ok(())
}
