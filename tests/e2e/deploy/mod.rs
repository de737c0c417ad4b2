//! The files in `deploy/`: alerts fire on the numbers that they are for, and a real Prometheus that
//! scrapes a real gateway evaluates every expression of the rules and the dashboards.

mod alerts;
mod prometheus;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::{Setup, refusing_address, repository, wait_until, wat};
use prometheus::{MISSING, Prometheus};

const YAML: &str = "filters: {f: {source: f.wasm}}\nupstreams: {u: {builtin: echo}}\n\
                    routes: [{name: r, upstream: u, filters: [f]}]";

#[test]
fn each_alert_fires_on_its_numbers_and_no_others() -> Result<()> {
    let folder = repository().join("deploy/prometheus");
    for (arguments, file) in [(["check", "rules"], "alerts.yml"), (["test", "rules"], "alerts.test.yml")] {
        let output =
            Command::new("promtool").args(arguments).arg(file).current_dir(&folder).output().context(MISSING)?;
        let text = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&text));
    }
    let alerts = fs::read_to_string(folder.join("alerts.yml"))?;
    let tests = fs::read_to_string(folder.join("alerts.test.yml"))?;
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(tests.contains(name), "alerts.test.yml has no test of {name}");
    }
    Ok(())
}

#[test]
fn a_real_prometheus_evaluates_the_dashboards_and_the_rules() -> Result<()> {
    // Nobody receives the traces, but their ids become exemplars.
    let traces =
        format!("telemetry: {{otlp: {{endpoint: \"http://{}\"}}, traces: {{sample: 1}}}}", refusing_address()?);
    let setup = Setup::new(&format!("{traces}\n{YAML}"))?;
    let gateway = setup.with("f.wasm", wat::header_setter("x-seen", "1", "")?)?.start()?;
    let prometheus = Prometheus::start(&gateway, &repository().join("deploy/prometheus"), None)?;
    wait_until("requests are counted twice", || {
        let _ = gateway.get("/", &[]);
        prometheus.query("rate(witgate_requests_total[5s]) > 0").is_ok_and(|result| result != serde_json::json!([]))
    });
    wait_until("Prometheus has a trace of a request", || {
        prometheus
            .get("/api/v1/query_exemplars?query=witgate_request_duration_seconds_bucket&start=0&end=9999999999")
            .is_ok_and(|found| found[0]["exemplars"][0]["labels"]["trace_id"].as_str().is_some_and(|id| id.len() == 32))
    });
    // Each recording rule has a value, and those of a histogram make a quantile.
    let rules = fs::read_to_string(repository().join("deploy/prometheus/rules.yml"))?;
    let names: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    ensure!(names.len() >= 5, "{names:?}");
    let quantile = "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5s]))) > 0";
    for expression in names.into_iter().chain([quantile]) {
        wait_until(&format!("{expression} has a value"), || {
            let _ = gateway.get("/", &[]);
            prometheus.query(expression).is_ok_and(|result| result != serde_json::json!([]))
        });
    }
    let dashboards = fs::read_dir(repository().join("deploy/grafana"))?.flatten().map(|entry| entry.path());
    let mut expressions = 0;
    for path in dashboards.filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        for (title, expression) in expressions_of(&path)? {
            prometheus.query(&expression).with_context(|| format!("{}: {title}: {expression}", path.display()))?;
            expressions += 1;
        }
    }
    ensure!(expressions >= 30, "only {expressions} expressions in deploy/grafana");
    let rules = prometheus.get("/api/v1/rules")?;
    let rules: Vec<_> = rules["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array())
        .flatten()
        .collect();
    ensure!(!rules.is_empty());
    for rule in rules {
        ensure!(rule["health"] == "ok" || rule["health"] == "unknown", "{rule}");
    }
    Ok(())
}

/// The title and the expression of each panel, with Grafana's variables filled in.
fn expressions_of(path: &Path) -> Result<Vec<(String, String)>> {
    let dashboard: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets =
        panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten().map(move |one| (panel, one)));
    let fill = |text: &str| {
        let variables = ["$instance", "$route", "$filter", "$upstream"];
        variables.iter().fold(text.replace("$__rate_interval", "5s"), |text, name| text.replace(name, ".*"))
    };
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("not a text");
    targets.map(|(panel, target)| Ok((text(&panel["title"])?, fill(&text(&target["expr"])?)))).collect()
}
