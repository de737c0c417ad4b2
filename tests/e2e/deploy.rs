//! The files in `deploy/`: alerts fire on the numbers that they are for, and a real Prometheus that
//! scrapes a real gateway evaluates every expression of the rules and the dashboards.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::{Client, Gateway, Setup, repository, wait_until, wat};

const YAML: &str = "filters: {f: {source: f.wasm}}\nupstreams: {u: {builtin: echo}}\n\
                    routes: [{name: r, upstream: u, filters: [f]}]";
const MISSING: &str = "prometheus is missing: run `tests/tools/install prometheus`";

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
    let gateway = Setup::new(YAML)?.with("f.wasm", wat::header_setter("x-seen", "1", "")?)?.start()?;
    let prometheus = Prometheus::start(&gateway)?;
    wait_until("requests are counted twice", || {
        let _ = gateway.get("/", &[]);
        prometheus.query("rate(witgate_requests_total[5s]) > 0").is_ok_and(|result| result != serde_json::json!([]))
    });
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

/// A Prometheus with the rules of `deploy/prometheus` that scrapes one gateway.
struct Prometheus {
    address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(gateway: &Gateway) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let rules = repository().join("deploy/prometheus");
        let config = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 1s}}\nrule_files: [{0}/alerts.yml, {0}/rules.yml]\n\
             scrape_configs: [{{job_name: witgate, static_configs: [{{targets: ['{1}']}}]}}]\n",
            rules.display(),
            gateway.admin
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?; // free until Prometheus binds it
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(MISSING)?;
        let prometheus = Self { address, child, _folder: folder };
        wait_until("Prometheus scrapes the gateway", || {
            prometheus.query("up == 1").is_ok_and(|result| result != serde_json::json!([]))
        });
        Ok(prometheus)
    }

    /// The result of an instant query.
    fn query(&self, expression: &str) -> Result<serde_json::Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        Ok(self.get(&format!("/api/v1/query?query={encoded}"))?["result"].clone())
    }

    fn get(&self, path: &str) -> Result<serde_json::Value> {
        let response = Client::connect(self.address)?.get(path, &[])?;
        ensure!(response.status == 200, "{}: {}", response.status, response.text());
        Ok(response.json()["data"].clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
