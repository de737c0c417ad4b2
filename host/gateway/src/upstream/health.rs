//! Checks the health of endpoints: one GET to each of them per interval, over a new connection.
//!
//! The checks run on a thread that serves no traffic, so a busy worker delays no check and a check
//! delays no request. The first check runs at once and decides alone; after it, a change needs as
//! many results in a row as the thresholds say. An endpoint keeps its verdict over reloads, and its
//! check restarts only if its settings changed. A check is sent and received like any other
//! exchange, so an endpoint whose responses the gateway would reject is unhealthy. The connection
//! is new, because whether a server accepts connections is part of the question. This module does
//! not know: requests of clients, balancing.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use tokio::sync::watch;
use tokio::task::{AbortHandle, LocalSet, spawn_local};

use super::cluster::Cluster;
use super::connect::connect;
use super::endpoint::Endpoint;
use super::{h1, h2};
use crate::net::tls::ClientTls;
use witgate_config::{HealthCheck, Protocol, Upstream};
use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};

/// How often the addresses of names are compared with the running checks.
const RESOLVE_INTERVAL: Duration = Duration::from_millis(250);

/// A check of one endpoint that runs.
struct RunningCheck {
    settings: Upstream,
    tls: Option<Arc<ClientTls>>,
    endpoint: Arc<Endpoint>,
    task: AbortHandle,
}

/// Checks the endpoints of all clusters that `clusters` returns, and calls it again after each
/// change. Returns when the sender of `changed` is dropped.
pub async fn run_health_checks(mut changed: watch::Receiver<()>, clusters: impl Fn() -> Vec<Arc<Cluster>>) {
    let checks = async {
        let mut running = HashMap::new();
        loop {
            changed.mark_unchanged();
            let clusters = clusters();
            update(&mut running, &clusters);
            // Names are resolved without traffic if their addresses are checked.
            let mut names =
                clusters.iter().filter(|cluster| cluster.settings.health_check.is_some() && cluster.has_names());
            let interval = names.next().map_or(Duration::MAX, |_| RESOLVE_INTERVAL);
            clusters
                .iter()
                .filter(|cluster| cluster.settings.health_check.is_some())
                .for_each(|cluster| cluster.renew());
            if let Ok(Err(_)) = tokio::time::timeout(interval, changed.changed()).await {
                return;
            }
        }
    };
    LocalSet::new().run_until(checks).await;
}

/// Starts new checks, stops obsolete ones, and restarts those whose settings changed.
fn update(running: &mut HashMap<u64, RunningCheck>, clusters: &[Arc<Cluster>]) {
    let mut wanted = HashMap::new();
    for cluster in clusters.iter().filter(|cluster| cluster.settings.health_check.is_some()) {
        for weighted in cluster.endpoints().list.iter().filter(|weighted| weighted.weight > 0) {
            wanted.insert(weighted.endpoint.id, (&cluster.settings, &cluster.tls, weighted.endpoint.clone()));
        }
    }
    running.retain(|id, check| match wanted.get(id) {
        Some((settings, tls, _)) if **settings == check.settings && is_same(tls, &check.tls) => true,
        found => {
            check.task.abort();
            if found.is_none() {
                check.endpoint.clear_health();
            }
            false
        }
    });
    for (id, (settings, tls, endpoint)) in wanted {
        running.entry(id).or_insert_with(|| {
            let (settings, tls) = (settings.clone(), tls.clone());
            let task = spawn_local(repeat(settings.clone(), tls.clone(), endpoint.clone())).abort_handle();
            RunningCheck { settings, tls, endpoint, task }
        });
    }
}

fn is_same(one: &Option<Arc<ClientTls>>, other: &Option<Arc<ClientTls>>) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

/// Checks one endpoint until the task is aborted.
async fn repeat(settings: Upstream, tls: Option<Arc<ClientTls>>, endpoint: Arc<Endpoint>) {
    let Some(check) = &settings.health_check else { return };
    let mut series = Series::new(endpoint.status().healthy);
    loop {
        let result = match tokio::time::timeout(check.timeout, run(&settings, tls.as_deref(), check, &endpoint)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no response within {:?}", check.timeout)),
        };
        let verdict = series.add(result.is_ok(), check);
        if let Some(healthy) = verdict
            && endpoint.set_health(healthy)
        {
            let (upstream, endpoint) = (&*endpoint.upstream, &*endpoint.label);
            match result {
                Ok(()) if series.is_first => tracing::debug!(upstream, endpoint, "an endpoint is healthy"),
                Ok(()) => tracing::info!(upstream, endpoint, "an endpoint is healthy again"),
                Err(why) => tracing::warn!(upstream, endpoint, why, "an endpoint is unhealthy"),
            }
        }
        series.is_first = false;
        // Ten percent of jitter, so that the checks of many gateways do not coincide.
        tokio::time::sleep(check.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Runs one check. The error says why it failed.
async fn run(
    settings: &Upstream,
    tls: Option<&ClientTls>,
    check: &HealthCheck,
    endpoint: &Endpoint,
) -> Result<(), String> {
    let authority = endpoint.authority();
    let host = check.host.as_deref().unwrap_or(&authority);
    let response = exchange(settings, tls, endpoint, request(host, check)?).await.map_err(|error| error.detail)?;
    let status = response.status().as_u16();
    if check.status.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
        Ok(())
    } else {
        Err(format!("status {status}"))
    }
}

fn request(host: &str, check: &HealthCheck) -> Result<http::Request<Body>, String> {
    http::Request::get(&check.path)
        .header(HOST, host)
        .header(USER_AGENT, "witgate-health-check")
        .header(ACCEPT, "*/*")
        .body(Body::empty())
        .map_err(|error| error.to_string())
}

/// Sends `request` over a new connection, which no limit of the upstream counts.
async fn exchange(
    settings: &Upstream,
    tls: Option<&ClientTls>,
    endpoint: &Endpoint,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, Error> {
    let (stream, tls_config) = connect(endpoint, settings, tls, settings.protocol).await?;
    match settings.protocol {
        Protocol::Http1 => {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            let connection = Box::new(h1::Connection::new(stream, tls_config, None));
            let head_bytes = settings.response_head_bytes;
            let options = h1::Options { reused: false, interim: None, body_idle: None, head_bytes };
            let sent = h1::exchange(connection, options, request, Box::new(drop)).await;
            sent.map_err(|failed| failed.error)
        }
        Protocol::H2 => {
            let session = h2::open(stream, tls_config, None, settings, Rc::default()).await?;
            let no_stream = || Error::new(Kind::UpstreamSaturated, "it allows no stream");
            let slot = session.begin_stream().ok_or_else(no_stream)?;
            // The check's timeout ends sooner than this stall limit.
            let stall = settings.health_check.as_ref().map_or(Duration::ZERO, |check| check.timeout);
            h2::exchange(slot, request, None, stall).await.map_err(|failed| failed.error)
        }
    }
}

/// The current verdict and the results in a row against it.
struct Series {
    healthy: Option<bool>,
    /// Whether no check has run before.
    is_first: bool,
    against: u32,
}

impl Series {
    const fn new(healthy: Option<bool>) -> Self {
        Self { healthy, is_first: healthy.is_none(), against: 0 }
    }

    /// Adds one result. Returns the verdict if it changes.
    fn add(&mut self, good: bool, check: &HealthCheck) -> Option<bool> {
        self.against = if self.healthy == Some(good) { 0 } else { self.against + 1 };
        let needed = match (self.healthy, good) {
            (None, _) => 1,
            (_, true) => check.healthy,
            (_, false) => check.unhealthy,
        };
        if self.against < needed {
            return None;
        }
        self.healthy = Some(good);
        self.against = 0;
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::spawn;
    use witgate_config::{AddressKind, Config, EndpointAddress};

    use super::*;
    use crate::telemetry::Metrics;
    use crate::upstream::endpoint::SocketTarget;

    fn settings(healthy: u32, unhealthy: u32) -> HealthCheck {
        HealthCheck {
            path: "/".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy,
            unhealthy,
            status: vec![(200, 399)],
            host: None,
        }
    }

    #[test]
    fn the_first_result_decides_and_later_changes_need_results_in_a_row() {
        let (mut series, check) = (Series::new(None), settings(2, 3));
        let results = [false, true, false, true, true, false, false, true, false, false, false];
        let verdicts: Vec<_> = results.iter().map(|good| series.add(*good, &check)).collect();
        let expected = [(0, Some(false)), (4, Some(true)), (10, Some(false))];
        for (index, verdict) in verdicts.iter().enumerate() {
            let expected = expected.iter().find(|(at, _)| *at == index).and_then(|(_, verdict)| *verdict);
            assert_eq!(*verdict, expected, "result {index}");
        }
    }

    /// Runs one check against a server that sends `response` and closes the connection.
    async fn check_server(response: &'static str) -> Result<u16, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let server = spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let _ = stream.read(&mut [0; 1024]).await?;
            stream.write_all(response.as_bytes()).await
        });
        let text = format!("upstreams: {{u: {{endpoints: ['http://127.0.0.1:{port}']}}}}\nroutes: [{{upstream: u}}]\n");
        let config = Config::parse(&text, "gateway.yaml", Path::new("/")).map_err(|error| error.to_string())?;
        let (kind, socket) = (AddressKind::Host, SocketAddr::from(([127, 0, 0, 1], port)));
        let address = EndpointAddress { kind, host: "127.0.0.1".into(), port, tls: false };
        let endpoint = Endpoint::new("u".into(), address, SocketTarget::Tcp(socket), &Metrics::new());
        let request = request("test", &settings(1, 1))?;
        let response = exchange(&config.upstreams["u"], None, &endpoint, request).await;
        server.abort();
        response.map(|response| response.status().as_u16()).map_err(|error| error.detail)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_a_valid_response_has_a_status() {
        for (response, status) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", 204),
            ("HTTP/1.0 200\r\n\r\n", 200),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200),
        ] {
            assert_eq!(check_server(response).await, Ok(status), "{response}");
        }
        let both = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        for bad in ["HTTP/2 200\r\n\r\n", "HTTP/1.1\r\n\r\n", "ok\r\n\r\n", "HTTP/1.1 2x0\r\n\r\n", "HTTP/1.1 20", both]
        {
            assert!(check_server(bad).await.is_err(), "{bad}");
        }
    }
}
