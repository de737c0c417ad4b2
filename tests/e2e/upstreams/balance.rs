//! Load balancing: weights, least requests, consistent hashing and name resolution.

use std::collections::BTreeMap;

use anyhow::Result;
use harness::{Setup, Upstream, wait_until};
use rustix::process::Signal;

use super::{gateway_error, gateway_to, serving_endpoint, url, urls, yaml};

#[test]
fn requests_are_shared_by_weight() -> Result<()> {
    let (a, b, none) = (Upstream::start()?, Upstream::start()?, Upstream::start()?);
    let weighted = |upstream: &Upstream, weight: u32| format!("{{url: {}, weight: {weight}}}", url(upstream.address));
    let endpoints = [weighted(&a, 3), weighted(&b, 1), weighted(&none, 0)];
    let gateway = Setup::new(&yaml(&endpoints, ""))?.workers(1).start()?;
    let mut client = gateway.client()?;
    for _ in 0..40 {
        assert_eq!(client.get("/", &[])?.status, 200);
    }
    assert_eq!((a.requests(), b.requests(), none.requests()), (30, 10, 0));
    Ok(())
}

#[test]
fn an_upstream_of_endpoints_without_weight_is_unavailable() -> Result<()> {
    let gateway = Setup::new(&yaml(&["{url: \"http://127.0.0.1:1\", weight: 0}".into()], ""))?.start()?;
    let response = gateway.get("/", &[])?;
    assert_eq!(gateway_error(&response), (503, "destination_unavailable".into()));
    assert_eq!(response.header("retry-after"), Some("1"));
    Ok(())
}

#[test]
fn least_requests_picks_the_less_busy_endpoint() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    let gateway = gateway_to(&[&a, &b], "balance: least_requests")?;
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/1500", &[], b"")?;
    wait_until("one endpoint is busy", || a.requests() + b.requests() == 1);
    let free = if a.requests() == 0 { &a } else { &b };
    let mut client = gateway.client()?;
    for _ in 0..20 {
        assert_eq!(serving_endpoint(&mut client, &[])?, free.address.to_string());
    }
    assert_eq!(slow.read(false)?.text(), "late");
    Ok(())
}

#[test]
fn a_hash_key_keeps_its_endpoint_until_that_is_removed() -> Result<()> {
    let all = [Upstream::start()?, Upstream::start()?, Upstream::start()?];
    let settings = "balance: {hash: {header: X-User}}";
    let gateway = Setup::new(&yaml(&urls(&[&all[0], &all[1], &all[2]]), settings))?.workers(2).start()?;
    let users: Vec<String> = (0..60).map(|user| format!("x-user: {user}")).collect();
    let endpoints = || -> Result<Vec<String>> {
        users.iter().map(|user| serving_endpoint(&mut gateway.client()?, &[user])).collect()
    };
    let before = endpoints()?;
    assert_eq!(endpoints()?, before, "the endpoint must not depend on the thread");
    let mut counts = BTreeMap::new();
    before.iter().for_each(|endpoint| *counts.entry(endpoint).or_insert(0) += 1);
    assert!(counts.len() == 3 && counts.values().all(|count| *count >= 8), "{counts:?}");

    let gone = all[1].address.to_string();
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", text.replace(&format!(", {}", url(all[1].address)), ""))?;
    gateway.signal(Signal::HUP)?;
    gateway.wait_logged("the configuration is in service", 1);
    for (before, after) in before.iter().zip(endpoints()?) {
        assert!(if *before == gone { after != gone } else { *before == after }, "{before} → {after}");
    }
    Ok(())
}

#[test]
fn a_cookie_the_path_or_the_client_ip_can_be_the_hash_key() -> Result<()> {
    let (a, b) = (Upstream::start()?, Upstream::start()?);
    for (key, headers) in [("{cookie: id}", "cookie: x=1; id=7"), ("path", "x-a: 1"), ("client_ip", "x-a: 1")] {
        let gateway = gateway_to(&[&a, &b], &format!("balance: {{hash: {key}}}"))?;
        let mut client = gateway.client()?;
        let first = serving_endpoint(&mut client, &[headers])?;
        for _ in 0..10 {
            assert_eq!(serving_endpoint(&mut client, &[headers])?, first, "{key}");
        }
    }
    Ok(())
}

#[test]
fn host_names_are_resolved() -> Result<()> {
    let upstream = Upstream::start()?;
    let endpoint = format!("\"http://localhost:{}\"", upstream.address.port());
    let gateway = Setup::new(&yaml(&[endpoint], ""))?.start()?;
    assert_eq!(gateway.get("/", &[])?.text(), "ok");
    let nowhere = Setup::new(&yaml(&["\"http://nowhere.invalid\"".into()], ""))?.start()?;
    assert_eq!(gateway_error(&nowhere.get("/", &[])?), (502, "dns_error".into()));
    nowhere.wait_logged("nowhere.invalid", 1);
    Ok(())
}
