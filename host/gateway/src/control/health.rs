//! Asks the endpoints whether they are well: one GET at each interval, from a thread that serves no traffic.
//!
//! So a busy worker delays no check, and a check delays no request. The first check comes at once and decides alone; after it so many good or bad ones in a row as
//! the thresholds say. A verdict is kept in the endpoint's endpoint, which outlives reloads; the check itself starts anew only if its settings changed. A new
//! connection for each check: whether a server takes one is part of the question. Must not know: requests of clients, how endpoints are chosen.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::AbortHandle;

use crate::net::Stream;
use crate::net::tls::ClientTls;
use crate::pipeline::snapshot::{Shared, Snapshot};
use crate::upstream::{Endpoint, connect};
use witgate_config::{HealthCheck, Protocol, Upstream};

/// More than any status line.
const LINE_BYTES_MAX: usize = 1024;
const USER_AGENT: &str = "witgate-health-check";

/// A check that runs.
struct Running {
    settings: Upstream,
    tls: Option<Arc<ClientTls>>,
    endpoint: Arc<Endpoint>,
    task: AbortHandle,
}

/// Checks what the present snapshot wants checked, until the gateway ends.
pub async fn check(shared: Arc<Shared>) {
    let mut swapped = shared.swapped.subscribe();
    let mut running = HashMap::new();
    loop {
        swapped.mark_unchanged();
        adjust(&mut running, &shared.snapshot.load());
        if swapped.changed().await.is_err() {
            return;
        }
    }
}

/// Starts what is new, stops what is gone, restarts what is checked by other settings.
fn adjust(running: &mut HashMap<u64, Running>, snapshot: &Snapshot) {
    let mut wanted = HashMap::new();
    for cluster in snapshot.upstreams.values().filter(|cluster| cluster.settings.health_check.is_some()) {
        for member in cluster.endpoints.iter().filter(|member| member.weight > 0) {
            wanted.insert(member.endpoint.id, (&cluster.settings, &cluster.tls, &member.endpoint));
        }
    }
    running.retain(|id, check| match wanted.get(id) {
        Some((settings, tls, _)) if **settings == check.settings && is_same(tls, &check.tls) => true,
        found => {
            check.task.abort();
            if found.is_none() {
                check.endpoint.forget_health();
            }
            false
        }
    });
    for (id, (settings, tls, endpoint)) in wanted {
        running.entry(id).or_insert_with(|| {
            let (settings, tls, endpoint) = (settings.clone(), tls.clone(), endpoint.clone());
            let task = tokio::spawn(repeat(settings.clone(), tls.clone(), endpoint.clone())).abort_handle();
            Running { settings, tls, endpoint, task }
        });
    }
}

fn is_same(one: &Option<Arc<ClientTls>>, other: &Option<Arc<ClientTls>>) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

async fn repeat(settings: Upstream, tls: Option<Arc<ClientTls>>, endpoint: Arc<Endpoint>) {
    let Some(check) = &settings.health_check else { return };
    let mut series = Series::new(endpoint.status().healthy);
    loop {
        let result = match tokio::time::timeout(check.timeout, ask(&settings, tls.as_deref(), check, &endpoint)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", check.timeout)),
        };
        let verdict = series.after(result.is_ok(), check);
        if let Some(healthy) = verdict
            && endpoint.set_health(healthy)
        {
            let (upstream, endpoint) = (&*endpoint.upstream, &*endpoint.label);
            match result {
                Ok(()) if series.first => tracing::debug!(upstream, endpoint, "an endpoint is healthy"),
                Ok(()) => tracing::info!(upstream, endpoint, "an endpoint is healthy again"),
                Err(why) => tracing::warn!(upstream, endpoint, why, "an endpoint is unhealthy"),
            }
        }
        series.first = false;
        // A tenth more or less: the checks of many gateways must not meet.
        tokio::time::sleep(check.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// One check. The error says what was wrong.
async fn ask(settings: &Upstream, tls: Option<&ClientTls>, check: &HealthCheck, endpoint: &Arc<Endpoint>) -> Result<(), String> {
    let (stream, _) = connect(endpoint, settings, tls, settings.protocol).await.map_err(|error| error.detail)?;
    let host = check.host.as_deref().unwrap_or(&endpoint.label);
    let status = match settings.protocol {
        Protocol::Http1 => ask_http1(stream, host, &check.path).await,
        Protocol::H2 => ask_http2(stream, if tls.is_some() { "https" } else { "http" }, host, &check.path).await,
    }?;
    if check.status.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
        Ok(())
    } else {
        Err(format!("status {status}"))
    }
}

async fn ask_http1(mut stream: Stream, host: &str, path: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    let mut line = Vec::with_capacity(64);
    while !line.contains(&b'\n') {
        if line.len() >= LINE_BYTES_MAX || stream.read_buf(&mut line).await.map_err(|error| error.to_string())? == 0 {
            return Err("the answer has no status line".into());
        }
    }
    status(&line).ok_or_else(|| "the answer is not HTTP/1".into())
}

async fn ask_http2(stream: Stream, scheme: &str, host: &str, path: &str) -> Result<u16, String> {
    let wrong = |error: h2::Error| error.to_string();
    let (send, connection) = h2::client::handshake(stream).await.map_err(wrong)?;
    let request = http::Request::get(format!("{scheme}://{host}{path}"))
        .version(http::Version::HTTP_2)
        .header("user-agent", USER_AGENT)
        .body(())
        .map_err(|error| error.to_string())?;
    let answer = async move {
        let (response, _) = send.ready().await?.send_request(request, true)?;
        Ok(response.await?.status().as_u16())
    };
    tokio::select! {
        answer = answer => answer.map_err(wrong),
        ended = connection => Err(ended.err().map_or_else(|| "it closed before its answer".into(), wrong)),
    }
}

/// The status of `HTTP/1.x NNN …`.
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?.get(1..)?.strip_prefix(b" ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

/// Results in a row.
struct Series {
    healthy: Option<bool>,
    first: bool,
    /// Results in a row that speak against the verdict.
    against: u32,
}

impl Series {
    const fn new(healthy: Option<bool>) -> Self {
        Self { healthy, first: healthy.is_none(), against: 0 }
    }

    /// The verdict after one more result, where it changes.
    fn after(&mut self, good: bool, check: &HealthCheck) -> Option<bool> {
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
    use std::time::Duration;

    use super::*;

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
    fn the_first_result_decides_and_then_so_many_in_a_row() {
        let (mut series, check) = (Series::new(None), settings(2, 3));
        let results = [false, true, false, true, true, false, false, true, false, false, false];
        let verdicts: Vec<_> = results.iter().map(|good| series.after(*good, &check)).collect();
        let expected = [(0, Some(false)), (4, Some(true)), (10, Some(false))];
        for (at, verdict) in verdicts.iter().enumerate() {
            let expected = expected.iter().find(|(place, _)| *place == at).and_then(|(_, verdict)| *verdict);
            assert_eq!(*verdict, expected, "result {at}");
        }
    }

    #[test]
    fn a_status_is_read_from_the_first_line_only() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 200\r\n"), Some(200));
        for bad in ["HTTP/2 200\r\n", "HTTP/1.1\r\n", "ok\r\n", "HTTP/1.1 2x0\r\n", "HTTP/1.1 20"] {
            assert_eq!(status(bad.as_bytes()), None, "{bad}");
        }
    }
}
