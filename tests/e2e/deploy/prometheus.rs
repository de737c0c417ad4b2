//! A real Prometheus that scrapes one gateway.
//!
//! This module does not know: which rules it evaluates.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::{Client, Gateway, wait_until};

pub(super) const MISSING: &str = "prometheus is missing: run `tests/tools/install prometheus`";

/// A process. Drop ends it.
pub(super) struct Prometheus {
    address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts with `alerts.yml` and `rules.yml` of the folder `rules`, and waits for a scrape. It
    /// sends alerts to the Alertmanager at this address.
    pub(super) fn start(gateway: &Gateway, rules: &Path, alertmanager: Option<SocketAddr>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let alerting = alertmanager.map(|address| {
            format!("alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{address}']}}]}}]}}\n")
        });
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s}}\n\
             rule_files: [{0}/alerts.yml, {0}/rules.yml]\n{1}\
             scrape_configs: [{{job_name: witgate, static_configs: [{{targets: ['{2}']}}]}}]\n",
            rules.display(),
            alerting.unwrap_or_default(),
            gateway.admin
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?; // free until Prometheus binds it
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--enable-feature=exemplar-storage", "--rules.alert.resend-delay=1s"])
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
    pub(super) fn query(&self, expression: &str) -> Result<serde_json::Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        Ok(self.get(&format!("/api/v1/query?query={encoded}"))?["result"].clone())
    }

    /// The data of an answer of its API.
    pub(super) fn get(&self, path: &str) -> Result<serde_json::Value> {
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
