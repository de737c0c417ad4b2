//! Each alert of `deploy/prometheus` fires on a real fault, and clears when the fault ends.
//!
//! `just alerts` runs it with a real Prometheus and a real Alertmanager, which notifies a webhook
//! of this test. It takes a minute, so it is no part of the other tests. Windows and waits of the
//! rules are shortened; expressions and labels are those of the files.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result};
use harness::redis::Redis;
use harness::tls::{Authority, TlsClient};
use harness::wat::{filter, header_setter, module};
use harness::{Client, Gateway, Setup, Upstream, refusing_address, repository, wait_up_to};
use rustix::process::Signal;

use super::prometheus::Prometheus;

/// How long an alert may take to fire or to clear.
const LIMIT: Duration = Duration::from_secs(120);

/// What each alert must name: its name, and a label with its value.
const EXPECTED: [(&str, &str, &str); 14] = [
    ("WitgateErrorRate", "route", "failing"),
    ("WitgateSlow", "route", "slow"),
    ("WitgateFilterFails", "filter", "traps"),
    ("WitgateFilterOutOfMemory", "filter", "grows"),
    ("WitgateFilterRefused", "filter", "refused"),
    ("WitgateFilterRolledBack", "filter", "released"),
    ("WitgateReloadFailed", "result", "refused"),
    ("WitgateReloadStuck", "files", "configuration"),
    ("WitgateStoreDown", "store", "shared"),
    ("WitgateCertificateExpires", "name", "a.test"),
    ("WitgateCertificateRefused", "reason", "garbled"),
    ("WitgateEndpointsDown", "upstream", "down"),
    ("WitgateLogLinesDropped", "instance", ""),
    ("WitgateDown", "job", "witgate"),
];

/// The alerts that the webhook was told of: name and labels.
#[derive(Default)]
struct Notifications {
    firing: BTreeSet<String>,
    resolved: BTreeSet<String>,
}

/// An Alertmanager whose webhook is this process. Drop ends it.
struct Alertmanager {
    address: SocketAddr,
    notifications: Arc<Mutex<Notifications>>,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    fn start() -> Result<Self> {
        let webhook = TcpListener::bind("127.0.0.1:0")?;
        let folder = tempfile::tempdir()?;
        let config = format!(
            "route: {{receiver: test, group_by: [...], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers: [{{name: test, webhook_configs: [{{url: 'http://{}/', send_resolved: true}}]}}]\n",
            webhook.local_addr()?
        );
        let file = folder.path().join("alertmanager.yml");
        fs::write(&file, config)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?; // free until Alertmanager binds it
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("prometheus-alertmanager is missing: run `tests/tools/install alertmanager`")?;
        let notifications = Arc::<Mutex<Notifications>>::default();
        let own = notifications.clone();
        thread::spawn(move || {
            for stream in webhook.incoming().map_while(Result::ok) {
                let own = own.clone();
                // The connection ends with the test.
                thread::spawn(move || drop(receive(stream, &own)));
            }
        });
        let alertmanager = Self { address, notifications, child, _folder: folder };
        wait_up_to(LIMIT, "Alertmanager is ready", || {
            Client::connect(address).is_ok_and(|mut client| client.get("/-/ready", &[]).is_ok())
        });
        Ok(alertmanager)
    }

    fn notifications(&self) -> MutexGuard<'_, Notifications> {
        self.notifications.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a list contains the alert.
    fn wait(&self, (name, label, value): (&str, &str, &str), list: fn(&Notifications) -> &BTreeSet<String>) {
        let (name_part, label_part) = (format!("\"alertname\":\"{name}\""), format!("\"{label}\":\"{value}"));
        wait_up_to(LIMIT, &format!("{name} for {label} {value}"), || {
            list(&self.notifications()).iter().any(|alert| alert.contains(&name_part) && alert.contains(&label_part))
        });
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers the notifications on a connection.
fn receive(stream: TcpStream, notifications: &Mutex<Notifications>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while stream.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let body: serde_json::Value = serde_json::from_slice(&body)?;
        {
            let mut notifications = notifications.lock().unwrap_or_else(PoisonError::into_inner);
            for alert in body["alerts"].as_array().into_iter().flatten() {
                let labels = alert["labels"].to_string();
                if alert["status"] == "firing" {
                    notifications.firing.insert(labels);
                } else {
                    notifications.resolved.insert(labels);
                }
            }
        }
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// The rules with short windows and waits.
fn short_rules() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let source = repository().join("deploy/prometheus");
    let text = fs::read_to_string(source.join("alerts.yml"))?;
    let text = ["[5m]", "[10m]"].iter().fold(text, |text, window| text.replace(window, "[10s]"));
    let text = ["1m", "2m", "5m"].iter().fold(text, |text, wait| text.replace(&format!("for: {wait}\n"), "for: 2s\n"));
    fs::write(folder.path().join("alerts.yml"), text.replace("> 600", "> 5"))?;
    fs::copy(source.join("rules.yml"), folder.path().join("rules.yml"))?;
    Ok(folder)
}

/// A filter that writes more log lines than a call may.
fn chatty() -> Result<Vec<u8>> {
    module(
        "(import \"witgate:gateway/log@0.1.0\" \"write\" (func $log (param i32 i32 i32)))
         (data (i32.const 3072) \"again\") (global $n (mut i32) (i32.const 200))",
        "(loop $l (call $log (i32.const 0) (i32.const 3072) (i32.const 5))
           (global.set $n (i32.sub (global.get $n) (i32.const 1))) (br_if $l (global.get $n))) (i32.const 0)",
    )
}

/// The configuration: the time between checks of the files, and the endpoints of one upstream.
fn yaml(upstream: &Upstream, redis: &Redis, interval: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"http://{address}\"")).collect();
    let gates = "{errors: 1%, requests: 10}";
    let release = format!("{{steps: [50%, 100%], hold: 1h, sticky: {{header: x-user}}, gates: {gates}}}");
    let routes = ["traps", "grows", "released", "chatty"]
        .map(|name| format!("- {{name: {name}, match: {{path: /{name}}}, filters: [{name}], upstream: u}}\n"));
    format!(
        "reload: {{watch: false, interval: {interval}}}\n\
         stores: {{shared: {{redis: {{url: \"{}\"}}}}}}\n\
         filters: {{traps: {{source: traps.wasm}}, grows: {{source: grows.wasm, memory: 1MiB}},\n  \
           refused: {{source: refused.wasm}}, chatty: {{source: chatty.wasm}}, released: {{source: released.wasm, release: {release}}}}}\n\
         upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 10s}}, down: {{endpoints: [{}], health_check: {{path: /, interval: 200ms}}}}}}\n\
         routes:\n{}\
         - {{name: failing, match: {{path: /status}}, upstream: u}}\n\
         - {{name: slow, match: {{path: /delay}}, upstream: u}}\n\
         - {{name: refused, filters: [refused], upstream: down}}\n",
        redis.url(),
        upstream.address,
        endpoints.join(", "),
        routes.concat(),
    )
}

/// Requests for these paths until `stop`, each from a thread of its own.
fn keep_asking(gateway: &Gateway, client: &Arc<TlsClient>, stop: &Arc<AtomicBool>) {
    for path in ["/status/503", "/delay/1500", "/traps", "/grows", "/released", "/chatty"] {
        let (address, client, stop) = (gateway.address, client.clone(), stop.clone());
        thread::spawn(move || {
            let mut user = 0;
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut http, _)) = client.connect(address, "a.test") else { continue };
                // Failures are what this is for; a connection serves until one ends it.
                while !stop.load(Ordering::Relaxed) && http.get(path, &[&format!("x-user: {user}")]).is_ok() {
                    user += 1;
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
    }
}

#[test]
fn each_alert_fires_on_a_real_fault_and_clears() -> Result<()> {
    if std::env::var_os("ALERTS").is_none() {
        return Ok(());
    }
    let (upstream, mut redis, ca, refusing) =
        (Upstream::start()?, Redis::start()?, Authority::new("ca")?, refusing_address()?);
    let good = header_setter("x-a", "1", "")?;
    let in_days = |days: u64| -> Result<Duration> {
        Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)? + Duration::from_secs(days * 86_400))
    };
    let three_days = in_days(3)?;
    let short =
        ca.issue_with(&["a.test"], |params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + three_days)?;
    let setup = Setup::new(&yaml(&upstream, &redis, "500ms", &[upstream.address, refusing]))?
        .level("error")
        .with("traps.wasm", filter("unreachable")?)?
        .with("grows.wasm", filter("(drop (memory.grow (i32.const 1000))) (i32.const 0)")?)?
        .with("refused.wasm", &good)?
        .with("released.wasm", &good)?
        .with("chatty.wasm", chatty()?)?
        .with("0.pem", &short.certificate)?
        .with("0.key", &short.key)?
        .listener("tls: {certificates: [{certificate: 0.pem, key: 0.key}]}");
    let text = |interval: &str, endpoints: &[SocketAddr]| setup.text(&yaml(&upstream, &redis, interval, endpoints));
    let stuck = text("1h", &[upstream.address, refusing]);
    let healthy = text("500ms", &[upstream.address]);
    let gateway = setup.start()?;
    let (rules, alertmanager) = (short_rules()?, Alertmanager::start()?);
    let _prometheus = Prometheus::start(&gateway, rules.path(), Some(alertmanager.address))?;
    let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let wait_firing = |alert: (&str, &str, &str)| {
        alertmanager.wait(alert, |known| &known.firing);
        println!("{:5.1} s  {} fires", began.elapsed().as_secs_f64(), alert.0);
    };
    let wait_resolved = |alert: (&str, &str, &str)| {
        alertmanager.wait(alert, |known| &known.resolved);
        println!("{:5.1} s  {} is clear", began.elapsed().as_secs_f64(), alert.0);
    };
    let [stuck_alert, down_alert] = ["WitgateReloadStuck", "WitgateDown"]
        .map(|name| EXPECTED.into_iter().find(|(own, ..)| *own == name).unwrap_or_default());
    let others = || EXPECTED.into_iter().filter(|alert| *alert != stuck_alert && *alert != down_alert);

    keep_asking(&gateway, &Arc::new(TlsClient::new(&ca)?), &stop);
    redis.kill()?;
    gateway.replace("0.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")?;
    gateway.replace("refused.wasm", "not a component")?;
    gateway.replace("released.wasm", filter("(nop) unreachable")?)?;
    gateway.replace("gateway.yaml", "nonsense: 1")?;
    others().for_each(wait_firing);
    // A configuration with a refused filter would be refused too.
    gateway.replace("refused.wasm", &good)?;
    gateway.replace("gateway.yaml", &stuck)?;
    gateway.signal(Signal::HUP)?;
    wait_firing(stuck_alert);

    stop.store(true, Ordering::Relaxed);
    redis.restart()?;
    let long = ca.issue(&["a.test"])?;
    gateway.replace("0.key", &long.key)?;
    gateway.replace("0.pem", &long.certificate)?;
    gateway.replace("released.wasm", &good)?;
    gateway.replace("gateway.yaml", &healthy)?;
    gateway.signal(Signal::HUP)?;
    others().chain([stuck_alert]).for_each(wait_resolved);

    gateway.signal(Signal::STOP)?;
    wait_firing(down_alert);
    gateway.signal(Signal::CONT)?;
    wait_resolved(down_alert);
    Ok(())
}
