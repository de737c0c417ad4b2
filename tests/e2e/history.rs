//! The history of releases: what was decided, by whom, with the figures; what differs between
//! versions; and the return to an earlier version. All of it survives `kill -9`.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wat::{state_reporter, with_examples, with_manifest};
use harness::{Gateway, Setup, repository, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// A filter that answers with its number, with a manifest.
fn version(number: u32) -> Result<Vec<u8>> {
    let component = state_reporter("", &[&format!("(i32.const {number})")], "")?;
    let manifest =
        format!("{{\"name\":\"f\",\"version\":\"{number}.0.0\",\"description\":\"number {number}\",\"request\":{{}}}}");
    Ok(with_manifest(component, &manifest))
}

fn start(release: &str) -> Result<Gateway> {
    let yaml = format!(
        "filters: {{f: {{source: f.wasm, timeout: 400ms{release}}}}}\nupstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
    );
    Setup::new(&yaml)?.with("f.wasm", version(1)?)?.start()
}

fn ctl(gateway: &Gateway, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(repository().join("target/release/witgate"));
    Ok(command.args(["ctl", "--admin", &gateway.admin.to_string()]).args(arguments).output()?)
}

/// Gives a command that must be carried out.
fn command(gateway: &Gateway, arguments: &[&str]) -> Result<String> {
    let output = ctl(gateway, arguments)?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{arguments:?}: {text}");
    Ok(text)
}

fn history(gateway: &Gateway) -> Result<Vec<Value>> {
    let list = gateway.admin("/releases/history?filter=f")?.json();
    Ok(list.as_array().context("a list")?.clone())
}

fn decisions(history: &[Value]) -> Vec<&str> {
    history.iter().filter_map(|one| one["decision"].as_str()).collect()
}

fn state(gateway: &Gateway) -> Value {
    gateway.admin("/releases").map(|response| response.json()[0].clone()).unwrap_or_default()
}

fn serves(gateway: &Gateway, number: u32) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == number.to_string())
}

/// Ends the gateway without any warning, and starts it again.
fn kill_and_start(mut gateway: Gateway) -> Result<Gateway> {
    gateway.signal(Signal::KILL)?;
    gateway.wait(Duration::from_secs(20))?;
    // No gateway runs, so this is a usual start in the same folder.
    gateway.start_successor()
}

#[test]
fn decisions_are_kept_with_their_reason_and_the_difference_of_versions() -> Result<()> {
    let gateway = start(", release: {steps: [100%], hold: 1h}")?;
    gateway.replace("f.wasm", version(2)?)?;
    wait_until("the release runs", || state(&gateway)["state"] == "releasing");
    for _ in 0..5 {
        assert!(serves(&gateway, 2));
    }
    command(&gateway, &["rollback", "f"])?;
    let gateway = kill_and_start(gateway)?;
    let kept = history(&gateway)?;
    // The file still has the version that was rolled back, which a start notices.
    assert_eq!(decisions(&kept), ["quarantined", "rolled_back", "started", "first"]);
    let rolled_back = &kept[1];
    assert!(rolled_back["who"].as_str().unwrap().starts_with("operator (loopback, 127.0.0.1:"), "{rolled_back}");
    assert_eq!(
        (&rolled_back["version"]["version"], &rolled_back["other"]["version"]),
        (&"2.0.0".into(), &"1.0.0".into())
    );
    assert_eq!(rolled_back["figures"]["new"]["requests"], 5, "{rolled_back}");
    let differences = rolled_back["differences"].to_string();
    assert!(differences.contains("manifest.version: \\\"1.0.0\\\" became \\\"2.0.0\\\""), "{differences}");
    assert!(differences.contains("digest") && !differences.contains("manifest.name"), "{differences}");
    let text = command(&gateway, &["history", "f", "--limit", "2"])?;
    assert!(text.contains("f  rolled back 2.0.0 (") && text.contains("beside 1.0.0 ("), "{text}");
    assert!(!text.contains("started"), "{text}");
    let json: Value = serde_json::from_str(&command(&gateway, &["history", "--json"])?)?;
    assert_eq!(json.as_array().map(Vec::len), Some(4));
    for bad in ["limit=0", "limit=x", "filter=%ff", "filter=a&filter=b"] {
        assert_eq!(gateway.admin(&format!("/releases/history?{bad}"))?.status, 400, "{bad}");
    }
    Ok(())
}

#[test]
fn a_rollback_goes_to_any_earlier_version() -> Result<()> {
    let gateway = start("")?;
    for number in 2..=4 {
        gateway.replace("f.wasm", version(number)?)?;
        wait_until("the new version serves", || serves(&gateway, number));
    }
    let refused = ctl(&gateway, &["rollback", "f", "--to", "9.0.0"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the earlier versions are 3.0.0 ("), "{refused:?}");
    let gateway = kill_and_start(gateway)?;
    command(&gateway, &["rollback", "f", "--to", "2.0.0"])?;
    assert!(serves(&gateway, 2), "its code is on disk");
    let first = state(&gateway)["previous"][1]["digest"].as_str().map(str::to_owned).context("a digest")?;
    command(&gateway, &["rollback", "f", "--to", &first[..12]])?;
    assert!(serves(&gateway, 1));
    assert_eq!(decisions(&history(&gateway)?)[..2], ["rolled_back", "rolled_back"]);
    Ok(())
}

#[test]
fn each_state_of_a_release_survives_kill_9() -> Result<()> {
    for (shadow, commands, expected, step) in [
        ("", &[][..], "releasing", 1),
        (", shadow: {}", &[], "releasing", 1),
        ("", &["pause"], "paused", 1),
        ("", &["rollback"], "rolled_back", 0),
        ("", &["promote"], "steady", 0),
        ("", &["promote", "rollback"], "rolled_back", 0),
    ] {
        let gateway = start(&format!(", release: {{steps: [1%, 100%], hold: 1h{shadow}}}"))?;
        gateway.replace("f.wasm", version(2)?)?;
        wait_until("the release runs", || state(&gateway)["state"] == "releasing");
        for name in commands {
            command(&gateway, &[name, "f"])?;
        }
        let before = state(&gateway);
        let gateway = kill_and_start(gateway)?;
        let after = state(&gateway);
        assert_eq!(after["state"], expected, "{commands:?}: {after}");
        assert_eq!(after["digest"], before["digest"], "{commands:?}");
        assert_eq!(after["release"]["step"].as_u64().unwrap_or(0), step, "{commands:?}: {after}");
        assert!(serves(&gateway, if commands == ["promote"] { 2 } else { 1 }), "{commands:?}");
    }
    Ok(())
}

#[test]
fn a_release_that_is_loading_or_at_a_later_step_survives_kill_9() -> Result<()> {
    let gateway = start(", release: {steps: [40%, 100%], hold: 100ms, gates: {requests: 1000000}}")?;
    // The process ends before the new file is loaded, or while it is: the start releases it.
    gateway.replace("f.wasm", version(2)?)?;
    let gateway = kill_and_start(gateway)?;
    wait_until("the step is held", || {
        let state = state(&gateway);
        state["state"] == "releasing"
            && state["verdict"].as_str().is_some_and(|why| why.contains("of the 1000000 requests"))
    });
    let gateway = kill_and_start(gateway)?;
    assert_eq!((&state(&gateway)["state"], &state(&gateway)["release"]["step"]), (&"releasing".into(), &1.into()));

    let gateway = start(
        ", release: {steps: [40%, 60%, 100%], hold: 100ms, sticky: {header: x-user}, gates: {requests: 20, latency_ratio: 1000}}",
    )?;
    gateway.replace("f.wasm", version(2)?)?;
    wait_until("the release runs", || state(&gateway)["state"] == "releasing");
    let mut user = 0;
    wait_until("the second step begins", || {
        user += 1;
        let answered = gateway.get("/", &[&format!("x-user: {user}")]).is_ok();
        answered && state(&gateway)["release"]["step"] == 2
    });
    let gateway = kill_and_start(gateway)?;
    let after = state(&gateway);
    assert_eq!((&after["state"], &after["release"]["step"]), (&"releasing".into(), &2.into()), "{after}");
    assert_eq!(decisions(&history(&gateway)?)[..2], ["started", "advanced"]);
    Ok(())
}

#[test]
fn a_version_whose_examples_fail_never_serves() -> Result<()> {
    let with = |number: u32, status: u16| -> Result<Vec<u8>> {
        let examples = format!("[{{\"name\": \"answers\", \"expect\": {{\"response\": {{\"status\": {status}}}}}}}]");
        Ok(with_examples(version(number)?, &examples))
    };
    let yaml = "filters: {f: {source: f.wasm, timeout: 400ms, release: {steps: [100%], hold: 1h, examples: require}}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";
    let gateway = Setup::new(yaml)?.with("f.wasm", with(1, 200)?)?.start()?;
    for bad in [with(2, 201)?, version(2)?] {
        let failures = "witgate_filter_load_failures_total{filter=\"f\",reason=\"examples\"}";
        let before = gateway.metric(failures)?;
        gateway.replace("f.wasm", bad)?;
        wait_until("the version is refused", || gateway.metric(failures).is_ok_and(|now| now > before));
        assert!(serves(&gateway, 1));
    }
    let refused = gateway.wait_logged("1 of 1 examples fail: answers: ", 1);
    assert!(refused[0].contains("201"), "{refused:?}");
    gateway.replace("f.wasm", with(3, 200)?)?;
    wait_until("the release runs", || state(&gateway)["state"] == "releasing");
    Ok(())
}
