//! The access log: its fields, secrets, escapes, sampling, rotation, and a target that is too slow.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::{Gateway, Setup, Upstream, wait_until, wait_up_to};
use rustix::process::Signal;
use serde_json::Value;

use super::eventful_gateway;

const ECHO: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{name: all, upstream: echo}]";

fn line(gateway: &Gateway, text: &str) -> Result<Value> {
    let line = gateway.wait_accessed(text, 1).remove(0);
    serde_json::from_str(&line).with_context(|| line)
}

#[test]
fn a_line_tells_the_whole_exchange() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = eventful_gateway(&upstream, "")?;
    let mut client = gateway.client()?;
    for _ in 0..2 {
        assert_eq!(client.send("POST", "/length?token=s3cret", &[], b"abcde")?.status, 200);
    }
    let line = line(&gateway, "\"result\":\"connect\"")?;
    for (field, expected) in [
        ("listener", "main"),
        ("client", "127.0.0.1"),
        ("protocol", "HTTP/1.1"),
        ("method", "POST"),
        ("host", "test"),
        ("path", "/length"),
        ("route", "api"),
        ("endpoint", &upstream.address.to_string()),
    ] {
        assert_eq!(line[field], expected, "{field} of {line}");
    }
    assert_eq!((&line["status"], &line["received"], &line["sent"]), (&200.into(), &5.into(), &2.into()));
    let tries = line["tries"].as_array().context("tries")?;
    assert_eq!((&tries[0]["result"], &tries[1]["result"]), (&"connect".into(), &"ok".into()));
    let filters = line["filters"].as_array().context("filters")?;
    assert_eq!((&filters[0]["filter"], &filters[0]["outcome"]), (&"a".into(), &"proceed".into()));
    assert_eq!((&filters[1]["filter"], &filters[1]["outcome"]), (&"b".into(), &"trap".into()));
    for time in ["duration_us", "head_us", "filters_us", "upstream_us", "body_us"] {
        assert!(line[time].as_u64().is_some_and(|time| time < 10_000_000), "{time} of {line}");
    }
    assert!(line["time"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{line}");
    assert!(!line.to_string().contains("s3cret"), "the query is off by default: {line}");
    Ok(())
}

#[test]
fn secrets_and_control_characters_do_not_reach_the_log() -> Result<()> {
    let gateway = Setup::new(ECHO)?
        .access_log("fields: [path, query, host], headers: [authorization, cookie, user-agent]")
        .start()?;
    let fields = ["authorization: Bearer s3cret", "cookie: id=s3cret", "user-agent: a\"\\\u{9b}2J"];
    assert_eq!(gateway.get("/a?b=1", &fields)?.status, 200);
    let text = gateway.wait_accessed("path", 1).remove(0);
    let line: Value = serde_json::from_str(&text)?;
    assert_eq!(
        (&line["headers"]["authorization"], &line["headers"]["cookie"]),
        (&"redacted".into(), &"redacted".into())
    );
    assert_eq!((&line["headers"]["user-agent"], &line["query"]), (&"a\"\\\u{9b}2J".into(), &"b=1".into()));
    assert!(text.contains("\\u009b") && !text.contains("s3cret") && line["status"].is_null(), "{text}");
    Ok(())
}

#[test]
fn failures_are_logged_whatever_the_sample_and_the_condition_are() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = format!("upstreams: {{u: {}}}\nroutes: [{{name: all, upstream: u}}]", upstream.yaml());
    for more in ["sample: 0", "when: {status: [500-599], slower: 10s}"] {
        let gateway = Setup::new(&yaml)?.access_log(more).start()?;
        assert_eq!(gateway.get("/fine", &[])?.status, 200);
        assert!(gateway.get("/cut", &[]).is_err());
        assert_eq!(gateway.get("/reset", &[])?.status, 502);
        let failed = line(&gateway, "/reset")?;
        assert_eq!(failed["failure"], "upstream-closed");
        assert_eq!(line(&gateway, "/cut")?["detail"], "the response body ended early");
        assert!(gateway.accessed("/fine").is_empty());
    }
    let gateway = Setup::new(&yaml)?.access_log("when: {slower: 100ms}").start()?;
    assert_eq!(gateway.get("/fast", &[])?.status, 200);
    assert_eq!(gateway.get("/delay/150", &[])?.status, 200);
    gateway.wait_accessed("/delay", 1);
    assert!(gateway.accessed("/fast").is_empty());
    Ok(())
}

#[test]
fn a_renamed_file_is_opened_again_after_a_signal() -> Result<()> {
    let gateway = Setup::new(ECHO)?.access_log("format: text").start()?;
    assert_eq!(gateway.get("/first", &[])?.status, 200);
    let first = gateway.wait_accessed("/first", 1).remove(0);
    assert!(first.contains("127.0.0.1 200 GET test/first ") && first.contains(" route=all "), "{first}");
    std::fs::rename(gateway.path("access.log"), gateway.path("access.log.1"))?;
    gateway.signal(Signal::USR1)?;
    wait_until("a new file is written", || {
        gateway.get("/second", &[]).is_ok() && Path::new(&gateway.path("access.log")).exists()
    });
    gateway.wait_accessed("/second", 1);
    Ok(())
}

#[test]
fn a_target_that_nobody_reads_delays_no_exchange() -> Result<()> {
    let setup = Setup::new(ECHO)?.access_log("");
    let pipe = setup.path("access.log");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
    // Both ends are open, so that neither opening nor writing fails.
    let _reader = std::fs::File::options().read(true).write(true).open(&pipe)?;
    let gateway = setup.start()?;
    let mut client = gateway.client()?;
    let path = format!("/{}", "x".repeat(2000));
    wait_up_to(Duration::from_secs(20), "lines are dropped", || {
        let served = (0..200).all(|_| client.get(&path, &[]).is_ok_and(|response| response.status == 200));
        assert!(served, "every exchange is served");
        gateway.metric("witgate_access_log_lines_dropped_total").is_ok_and(|lines| lines > 0.0)
    });
    Ok(())
}

#[test]
fn the_end_of_the_gateway_loses_no_line() -> Result<()> {
    let mut gateway = Setup::new(ECHO)?.access_log("").start()?;
    for _ in 0..20 {
        assert_eq!(gateway.get("/", &[])?.status, 200);
    }
    gateway.signal(Signal::TERM)?;
    assert!(gateway.wait(Duration::from_secs(20))?.success());
    assert_eq!(gateway.accessed("\"status\":200").len(), 20);
    Ok(())
}
