//! Releases of filters: a new version takes over step by step, is rolled back by itself when it is
//! worse, and obeys an operator's commands, which web pages of other sites cannot give.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::wat::state_reporter;
use harness::{Client, Gateway, Response, Setup, repository, wait_until, wait_up_to};
use serde_json::{Value, json};

/// A trap in one of `one_of` calls, at random.
fn trap_at_random(one_of: u32) -> (String, String) {
    let import = "(import \"witgate:gateway/random@0.1.0\" \"number\" (func $random (result i32)))";
    let trap = format!("(if (i32.eqz (i32.rem_u (call $random) (i32.const {one_of}))) (then unreachable))");
    (import.into(), trap)
}

/// A filter that answers with its version, after `work`.
fn version(number: u32, fields: &str, work: &str) -> Result<Vec<u8>> {
    state_reporter(fields, &[&format!("(i32.const {number})")], work)
}

/// A filter that answers with its version, after work in proportion to `rounds`.
fn slow(number: u32, rounds: u32) -> Result<Vec<u8>> {
    let counter = format!("(global $n (mut i32) (i32.const {rounds}))");
    let countdown = "(loop $l (global.set $n (i32.sub (global.get $n) (i32.const 1))) (br_if $l (global.get $n)))";
    version(number, &counter, countdown)
}

fn yaml(release: &str) -> String {
    format!(
        "filters: {{f: {{source: f.wasm, timeout: 400ms, release: {release}}}}}\nupstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
    )
}

fn start(release: &str) -> Result<Gateway> {
    Setup::new(&yaml(release))?.with("f.wasm", version(1, "", "")?)?.start()
}

/// The entry of filter f.
fn release(gateway: &Gateway) -> Value {
    gateway.admin("/releases").map(|response| response.json()[0].clone()).unwrap_or_default()
}

fn wait_state(gateway: &Gateway, state: &str) {
    wait_until(&format!("the release is {state}"), || release(gateway)["state"] == state);
}

/// Gives a command as a person on this host does.
fn command(gateway: &Gateway, command: &str) -> Result<Response> {
    send(gateway, "POST", &format!("/releases/f/{command}"), "localhost", &[])
}

fn send(gateway: &Gateway, method: &str, path: &str, host: &str, headers: &[&str]) -> Result<Response> {
    let address = (std::net::Ipv4Addr::LOCALHOST, gateway.admin.port());
    Client::over(TcpStream::connect(address)?, host).send(method, path, headers, b"")
}

fn ctl(gateway: &Gateway, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(repository().join("target/release/witgate"));
    Ok(command.args(["ctl", "--admin", &gateway.admin.to_string()]).args(arguments).output()?)
}

#[test]
fn a_version_that_traps_on_some_requests_is_rolled_back_by_itself() -> Result<()> {
    let gateway =
        start("{steps: [10%, 100%], hold: 1h, sticky: {header: x-user}, gates: {errors: 1%, requests: 100}}")?;
    let (import, trap) = trap_at_random(20);
    let bad = version(2, &import, &trap)?;
    gateway.replace("f.wasm", &bad)?;
    wait_state(&gateway, "releasing");
    let (mut client, mut failed, mut total) = (gateway.client()?, 0, 0);
    let began = Instant::now();
    while release_is_running(&gateway, total) {
        let response = client.get("/", &[&format!("x-user: {total}")])?;
        total += 1;
        failed += u32::from(response.status == 502);
        ensure!(total < 20_000, "{}", release(&gateway));
    }
    println!("{failed} of {total} requests saw an error, rolled back after {:?}", began.elapsed());
    assert!((2..20).contains(&failed), "{failed} of {total} requests failed");
    let state = release(&gateway);
    assert_eq!((&state["state"], &state["release"]), (&"rolled_back".into(), &Value::Null), "{state}");
    assert!(state["verdict"].as_str().unwrap().contains("requests failed ("), "{state}");
    assert_eq!(gateway.metric("witgate_release_decisions_total{filter=\"f\",decision=\"rolled_back\"}")?, 1.0);
    gateway.wait_logged("the version is out of service and quarantined", 1);
    for user in 0..50 {
        assert_eq!(client.get("/", &[&format!("x-user: {user}")])?.text(), "1", "only the old version serves");
    }
    // The same bytes again are still quarantined; another version is released.
    gateway.replace("f.wasm", &bad)?;
    gateway.wait_logged("a quarantined version is not put into service", 1);
    assert_eq!(release(&gateway)["state"], "rolled_back");
    gateway.replace("f.wasm", version(3, "", "")?)?;
    wait_state(&gateway, "releasing");
    Ok(())
}

/// Asked at each tenth request, because it takes longer than a request.
fn release_is_running(gateway: &Gateway, request: u32) -> bool {
    !request.is_multiple_of(10) || release(gateway)["state"] == "releasing"
}

#[test]
fn a_good_version_takes_over_in_steps_and_clients_never_go_back() -> Result<()> {
    let gateway =
        start("{steps: [30%, 100%], hold: 300ms, sticky: {cookie: user}, gates: {requests: 20, latency_ratio: 1000}}")?;
    gateway.replace("f.wasm", version(2, "", "")?)?;
    wait_state(&gateway, "releasing");
    assert_eq!(gateway.metric("witgate_release_step{filter=\"f\"}")?, 1.0);
    let mut seen: BTreeMap<u32, String> = BTreeMap::new();
    let (mut both, mut client) = (false, gateway.client()?);
    let until = Instant::now() + Duration::from_secs(20);
    while release(&gateway)["state"] != "steady" {
        for user in 0..40 {
            let text = client.get("/", &[&format!("cookie: a=b; user={user}")])?.text();
            let before = seen.insert(user, text.clone()).unwrap_or_default();
            ensure!(before != "2" || text == "2", "user {user} went back to the old version");
        }
        both |= seen.values().any(|version| version == "1") && seen.values().any(|version| version == "2");
        ensure!(Instant::now() < until, "{}", release(&gateway));
    }
    assert!(both, "at the first step both versions serve");
    assert_eq!(client.get("/", &[])?.text(), "2");
    let decisions =
        |decision| gateway.metric(&format!("witgate_release_decisions_total{{filter=\"f\",decision=\"{decision}\"}}"));
    assert_eq!((decisions("started")?, decisions("advanced")?, decisions("completed")?), (1.0, 1.0, 1.0));
    Ok(())
}

#[test]
fn a_slow_version_is_held_and_then_rolled_back() -> Result<()> {
    let setup = Setup::new(&yaml(
        "{steps: [50%, 100%], hold: 200ms, sticky: {header: x-user}, gates: {errors: 50%, requests: 5, latency_ratio: 3}}",
    ))?;
    let gateway = setup.with("f.wasm", slow(1, 1)?)?.start()?;
    gateway.replace("f.wasm", slow(2, 10_000_000)?)?;
    wait_state(&gateway, "releasing");
    let (mut client, mut user) = (gateway.client()?, 0);
    wait_up_to(Duration::from_secs(20), "the slow version is rolled back", || {
        for _ in 0..5 {
            user += 1;
            let answered = client.get("/", &[&format!("x-user: {user}")]);
            assert!(answered.is_ok_and(|response| response.status == 200));
        }
        release(&gateway)["state"] == "rolled_back"
    });
    let state = release(&gateway);
    assert!(state["quarantined"][0]["why"].as_str().unwrap().contains("3 holds in a row"), "{state}");
    // A hold with too few requests is one more.
    assert!(gateway.metric("witgate_release_decisions_total{filter=\"f\",decision=\"held\"}")? >= 2.0);
    Ok(())
}

#[test]
fn commands_take_effect_at_once() -> Result<()> {
    let gateway = start("{steps: [1%, 100%], hold: 1h}")?;
    assert_eq!(command(&gateway, "promote")?.status, 409, "no release runs");
    assert_eq!(command(&gateway, "rollback")?.status, 409, "no earlier version is known");
    assert_eq!(send(&gateway, "POST", "/releases/none/promote", "localhost", &[])?.status, 404);
    gateway.replace("f.wasm", version(2, "", "")?)?;
    wait_state(&gateway, "releasing");
    assert_eq!(command(&gateway, "pause")?.status, 200);
    assert_eq!((command(&gateway, "pause")?.status, &release(&gateway)["state"]), (409, &"paused".into()));
    assert_eq!(command(&gateway, "resume")?.status, 200);
    let mut client = gateway.client()?;
    let mut until = |name: &str, expected: &str| -> Result<Duration> {
        let began = Instant::now();
        let response = command(&gateway, name)?;
        ensure!(response.status == 200, "{name}: {} {}", response.status, response.text());
        while client.get("/", &[])?.text() != expected {}
        Ok(began.elapsed())
    };
    let promoted = until("promote", "2")?;
    let back = until("rollback", "1")?;
    assert_eq!(release(&gateway)["state"], "rolled_back");
    let again = until("promote", "2")?;
    let back_again = until("rollback", "1")?;
    println!("promote {promoted:?}, rollback {back:?}, promote {again:?}, rollback {back_again:?}");
    for took in [promoted, back, again, back_again] {
        assert!(took < Duration::from_millis(200), "{took:?}");
    }
    let audit = gateway.wait_logged("audit: an operator gave a command", 9);
    assert!(audit.iter().all(|line| line.contains("\"who\":\"loopback\"") && line.contains("127.0.0.1:")), "{audit:?}");
    Ok(())
}

#[test]
fn a_rollback_survives_a_restart_and_needs_no_file() -> Result<()> {
    let yaml = yaml("{steps: [100%], hold: 1h}").replace(", release: {steps: [100%], hold: 1h}", "");
    let gateway = Setup::new(&yaml)?.with("f.wasm", version(1, "", "")?)?.start()?;
    let serves = |gateway: &Gateway, text: &str| gateway.get("/", &[]).is_ok_and(|response| response.text() == text);
    gateway.replace("f.wasm", version(2, "", "")?)?;
    wait_until("the new version serves at once", || serves(&gateway, "2"));
    let successor = gateway.start_successor()?;
    assert!(serves(&successor, "2"));
    assert_eq!(command(&successor, "rollback")?.status, 200);
    assert!(serves(&successor, "1"), "the version before comes from the compiled code");
    let last = successor.start_successor()?;
    assert!(serves(&last, "1"), "the file's version is still quarantined");
    assert_eq!(release(&last)["state"], "rolled_back");
    assert_eq!(command(&last, "promote")?.status, 200);
    assert!(serves(&last, "2"));
    Ok(())
}

#[test]
fn a_filter_that_comes_back_into_the_configuration_still_has_its_quarantine() -> Result<()> {
    let setup = Setup::new(&yaml("{hold: 1h}"))?.with("f.wasm", version(1, "", "")?)?;
    let (with, without) =
        (setup.text(&yaml("{hold: 1h}")), setup.text("upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]"));
    let mut gateway = setup.start()?;
    gateway.replace("f.wasm", version(2, "", "")?)?;
    wait_state(&gateway, "releasing");
    assert_eq!(command(&gateway, "rollback")?.status, 200);
    gateway.replace("gateway.yaml", without)?;
    wait_until("the filter is removed", || gateway.admin("/releases").is_ok_and(|list| list.json() == json!([])));
    gateway.restart()?;
    gateway.replace("gateway.yaml", with)?;
    wait_until("the filter is back", || release(&gateway)["name"] == "f");
    assert_eq!(gateway.get("/", &[])?.text(), "1", "the file has the version that was rolled back");
    assert_eq!(release(&gateway)["state"], "rolled_back");
    Ok(())
}

#[test]
fn web_pages_of_other_sites_cannot_give_commands() -> Result<()> {
    let gateway = start("{steps: [1%, 100%], hold: 1h}")?;
    gateway.replace("f.wasm", version(2, "", "")?)?;
    wait_state(&gateway, "releasing");
    let path = "/releases/f/promote";
    assert_eq!(send(&gateway, "POST", path, "evil.example", &[])?.status, 403, "DNS rebinding");
    for origin in ["https://evil.example", "http://localhost:3000", "null"] {
        let response = send(&gateway, "POST", path, "localhost", &[&format!("origin: {origin}")])?;
        assert_eq!(response.status, 403, "{origin}");
    }
    let get = send(&gateway, "GET", path, "localhost", &[])?;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    assert_eq!(release(&gateway)["state"], "releasing");
    gateway.wait_logged("audit: a command was refused", 4);
    Ok(())
}

#[test]
fn an_address_that_is_not_loopback_needs_the_token() -> Result<()> {
    for (token, header, expected) in [
        (", token: 0123456789abcdef", "x: y", 401),
        (", token: 0123456789abcdef", "authorization: Bearer 0123456789abcdee", 401),
        (", token: 0123456789abcdef", "authorization: Bearer 0123456789abcdef", 409),
    ] {
        let setup = Setup::new(&yaml("{hold: 1h}"))?.admin(&format!("address: \"0.0.0.0:0\"{token}"));
        let gateway = setup.with("f.wasm", version(1, "", "")?)?.start()?;
        let response = send(&gateway, "POST", "/releases/f/promote", "localhost", &[header])?;
        assert_eq!(response.status, expected, "{token} {header}: {}", response.text());
    }
    Ok(())
}

#[test]
fn ctl_shows_and_commands() -> Result<()> {
    let gateway = start("{steps: [1%, 100%], hold: 1h}")?;
    gateway.replace("f.wasm", version(2, "", "")?)?;
    wait_state(&gateway, "releasing");
    let text = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let releases = ctl(&gateway, &["releases"])?;
    assert!(text(&releases).contains("releasing") && text(&releases).contains("0.01"), "{}", text(&releases));
    let json: Value = serde_json::from_slice(&ctl(&gateway, &["releases", "--json"])?.stdout)?;
    assert_eq!(json[0]["release"]["step"], 1);
    let promoted = ctl(&gateway, &["promote", "f"])?;
    assert!(promoted.status.success() && text(&promoted).starts_with("f: completed"), "{}", text(&promoted));
    let refused = ctl(&gateway, &["pause", "f"])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("no release runs"), "{}", text(&refused));
    for list in ["filters", "upstreams", "routes"] {
        let output = ctl(&gateway, &[list])?;
        assert!(output.status.success() && text(&output).starts_with("NAME"), "{}", text(&output));
    }
    assert_eq!(ctl(&gateway, &["ready"])?.status.code(), Some(0));
    let nobody = Command::new(repository().join("target/release/witgate"))
        .args(["ctl", "--admin", "127.0.0.1:1", "ready"])
        .output()?;
    assert_eq!(nobody.status.code(), Some(1));
    Ok(())
}
