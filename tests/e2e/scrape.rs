//! `/metrics` in both formats, and what `/filters` and the metrics say of reloads.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup, wait_until, wat};

const YAML: &str = "reload: {interval: 100ms}\nfilters: {f: {source: f.wasm}}\nupstreams: {u: {builtin: echo}}\n\
                    routes: [{upstream: u, filters: [f]}]";

fn gateway() -> Result<Gateway> {
    Setup::new(YAML)?.with("f.wasm", wat::header_setter("x-seen", "1", "")?)?.start()
}

/// The content type and the text for this `accept`.
fn scrape(gateway: &Gateway, accept: &str) -> Result<(String, String)> {
    let fields = if accept.is_empty() { vec![] } else { vec![accept] };
    let response = gateway.admin_client()?.get("/metrics", &fields)?;
    Ok((response.header("content-type").unwrap_or_default().to_owned(), response.text()))
}

#[test]
fn promtool_finds_nothing_to_improve() -> Result<()> {
    let gateway = gateway()?;
    ensure!(gateway.get("/", &[])?.status == 200);
    for accept in ["", "accept: text/plain", "accept: */*"] {
        let (kind, text) = scrape(&gateway, accept)?;
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8", "{accept}");
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("promtool does not run: tests/tools/install prometheus")?;
        promtool.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
        let output = promtool.wait_with_output()?;
        let found = [output.stdout, output.stderr].concat();
        ensure!(output.status.success() && found.is_empty(), "{}", String::from_utf8_lossy(&found));
        for name in ["cpu_seconds_total", "start_time_seconds", "resident_memory_bytes", "open_fds", "max_fds"] {
            ensure!(text.contains(&format!("\nprocess_{name} ")), "process_{name} is missing");
        }
    }
    Ok(())
}

#[test]
fn openmetrics_is_sent_to_who_asks_for_it() -> Result<()> {
    let gateway = gateway()?;
    ensure!(gateway.get("/", &[])?.status == 200);
    // What Prometheus 2.42 sends.
    let accept = "accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                  text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let (kind, text) = scrape(&gateway, accept)?;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    ensure!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
    ensure!(
        text.contains("# TYPE process_cpu_seconds counter\n") && text.contains("# TYPE witgate_requests counter\n")
    );
    let described = |kind: &str| -> Vec<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.split(' ').next());
        lines.collect()
    };
    assert_eq!(described("# HELP "), described("# TYPE "), "every metric has both");
    Ok(())
}

#[test]
fn a_refused_filter_shows_why_and_since_when_the_present_one_serves() -> Result<()> {
    let gateway = gateway()?;
    let filter = || Ok::<_, anyhow::Error>(gateway.admin_client()?.get("/filters", &[])?.json()[0].clone());
    let first = filter()?;
    ensure!(first["serving_since"].as_u64().is_some_and(|since| since > 1_700_000_000) && first["refused"].is_null());
    assert_eq!(gateway.metric("witgate_filter_last_reload_successful{filter=\"f\"}")?, 1.0);
    gateway.replace("f.wasm", "hello")?;
    wait_until("the file is refused", || filter().is_ok_and(|shown| shown["refused"].is_object()));
    let refused = filter()?;
    ensure!(refused["refused"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{refused}");
    ensure!(refused["refused"]["at"].as_u64() >= first["serving_since"].as_u64(), "{refused}");
    assert_eq!((&refused["digest"], &refused["serving_since"]), (&first["digest"], &first["serving_since"]));
    assert_eq!(gateway.metric("witgate_filter_last_reload_successful{filter=\"f\"}")?, 0.0);
    gateway.replace("f.wasm", wat::header_setter("x-seen", "2", "")?)?;
    wait_until("a good file is accepted", || filter().is_ok_and(|shown| shown["refused"].is_null()));
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    gateway.replace("gateway.yaml", "nonsense: 1")?;
    wait_until("the configuration is refused", || {
        gateway.metric("witgate_config_last_reload_successful").ok() == Some(0.0)
    });
    gateway.replace("gateway.yaml", text)?;
    wait_until("it is applied", || gateway.metric("witgate_config_last_reload_successful").ok() == Some(1.0));
    Ok(())
}
