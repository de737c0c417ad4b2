//! The load: many keep-alive connections on one thread, in a closed loop (the next request follows
//! the response) or an open loop (at a fixed rate).
//!
//! The open loop measures from the time at which a request was due, so a gateway that stalls is
//! charged for every request that had to wait. The runtime's timers have a resolution of 1 ms, so
//! the load polls for the last part of each wait.
//!
//! This module does not know: gateways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::machine;
use crate::upstream::{self, end_of_head};

/// Fields of a browser's request.
const FIELDS: &str = "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\naccept: text/html,application/xhtml+xml\r\naccept-encoding: gzip, br\r\naccept-language: en-GB,en;q=0.9\r\ncache-control: no-cache\r\ncookie: session=abcdef0123456789; theme=dark\r\nauthorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc\r\n";
/// Connections of the closed loop.
pub(crate) const CONNECTIONS: usize = 64;
/// The field that every filter compares.
pub(crate) const KEY: &str = "x-api-key: s3cret\r\n";
/// A measurement fails if more than one request in this many fails.
const FAILED_SHARE: u64 = 200;
/// A response that takes longer is an error.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The load polls for this long before a request is due. Longer than the timer's resolution.
const POLL_BEFORE: Duration = Duration::from_millis(3);
/// The open loop ignores responses of this time at the beginning, while connections and caches warm
/// up.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// The runtime of the load and the upstream, on the calling thread. It is bound to its core only
/// while it runs, so that processes started in between may use all cores.
#[derive(Debug)]
pub(crate) struct Driver {
    runtime: Runtime,
    core: usize,
}

impl Driver {
    /// Creates the runtime for this core.
    pub(crate) fn new(core: usize) -> Result<Self> {
        Ok(Self { runtime: Builder::new_current_thread().enable_all().build()?, core })
    }

    /// Runs a future to its end.
    pub(crate) fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        machine::run_on_core(self.core, || self.runtime.block_on(work))
    }
}

/// An address and the request to send to it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    request: Arc<[u8]>,
}

impl Target {
    /// A GET with the fields of a browser and these field lines.
    pub(crate) fn new(address: SocketAddr, path: &str, fields: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\n{FIELDS}{fields}\r\n");
        Self { address, request: request.into_bytes().into() }
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: vec![0; 32 * 1024] })
    }

    /// Sends a request and reads the response. Returns its status and where its body is in the
    /// buffer.
    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, std::ops::Range<usize>)> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let mut head = None;
        loop {
            if head.is_none() {
                head = parse_head(&self.buffer[..filled])?;
            }
            if let Some((status, ref body)) = head
                && filled >= body.end
            {
                ensure!(filled == body.end, "the response is longer than its content-length");
                return Ok((status, body.clone()));
            }
            ensure!(filled < self.buffer.len(), "the response is larger than the buffer");
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the connection was closed before the end of the response");
            filled += read;
        }
    }

    /// An exchange of a measurement, which fails unless it gets a 200 with the upstream's body.
    async fn measured_exchange(&mut self, target: &Target) -> Result<()> {
        let (status, body) = self.exchange(&target.request).await?;
        if status != 200 || body.len() != upstream::BODY {
            let text: String = String::from_utf8_lossy(&self.buffer[body]).chars().take(100).collect();
            bail!("status {status}: {text}");
        }
        Ok(())
    }
}

/// Returns the status and where the body is, once the header section is complete.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, std::ops::Range<usize>)>> {
    let Some(end) = end_of_head(bytes) else { return Ok(None) };
    let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let mut length = None;
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        const NAME: &[u8] = b"content-length:";
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            length = std::str::from_utf8(&line[NAME.len()..]).ok().and_then(|text| text.trim().parse::<usize>().ok());
        }
    }
    let length = length.context("the response has no content-length")?;
    Ok(Some((status.context("the response has no status")?, end..end + length)))
}

/// Sends one request on a new connection.
pub(crate) async fn single_request(target: &Target) -> Result<Response> {
    let exchange = async {
        let mut connection = Connection::open(target.address).await?;
        let (status, body) = connection.exchange(&target.request).await?;
        Ok(Response { status, body: String::from_utf8_lossy(&connection.buffer[body]).into_owned() })
    };
    tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await.context("no response in time")?
}

/// Sends requests on all connections, each as soon as the previous response has arrived. Ends after
/// `length` or `max` responses. Returns the number of responses.
pub(crate) async fn closed_loop(target: &Target, connections: usize, length: Duration, max: u64) -> Result<u64> {
    let until = Instant::now() + length;
    let answered = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (target, answered) = (target.clone(), answered.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(target.address).await?;
            let mut failed = Failures::default();
            while Instant::now() < until && answered.load(Ordering::Relaxed) < max {
                if failed.record(connection.measured_exchange(&target).await, &mut connection).await? {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(failed)
        });
    }
    let failed = join_all(tasks, length).await?;
    let answered = answered.load(Ordering::Relaxed);
    Failures::check(failed, answered)?;
    Ok(answered)
}

/// Requests that failed. A few may have hit a timeout or a closing connection; more would falsify
/// the figure.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    first: Option<anyhow::Error>,
}

impl Failures {
    /// Counts a failure and connects again. Returns whether the request succeeded.
    async fn record(&mut self, result: Result<()>, connection: &mut Connection) -> Result<bool> {
        let Err(error) = result else { return Ok(true) };
        self.count += 1;
        self.first.get_or_insert(error);
        *connection = Connection::open(connection.address).await?;
        Ok(false)
    }

    /// Fails if too many requests failed.
    fn check(all: impl IntoIterator<Item = Self>, answered: u64) -> Result<()> {
        let mut count = 0;
        let mut first = None;
        for failed in all {
            count += failed.count;
            first = first.or(failed.first);
        }
        match first {
            Some(error) if count * FAILED_SHARE > answered => {
                Err(error.context(format!("{count} requests failed and {answered} succeeded; the first failure")))
            }
            _ => Ok(()),
        }
    }
}

/// Measurements of the open loop.
#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies {
    /// Times from when a request was due until its response was complete, µs.
    pub(crate) responses: Vec<f64>,
    /// How late requests were sent although their connection was free, µs: the load's own error.
    pub(crate) late: Vec<f64>,
}

/// Sends `rate` requests per second, spread evenly over the connections. Ends after `length`, or
/// when `stop` is set.
pub(crate) async fn open_loop(
    target: &Target,
    connections: u32,
    rate: u32,
    length: Duration,
    stop: Arc<AtomicBool>,
) -> Result<Latencies> {
    let begin = Instant::now() + Duration::from_millis(100);
    let until = begin + length;
    let between = Duration::from_secs(1) / rate;
    let mut tasks = JoinSet::new();
    for index in 0..connections {
        let (target, stop) = (target.clone(), stop.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(target.address).await?;
            let mut latencies = Latencies::default();
            let mut failed = Failures::default();
            let mut due = begin + between * index;
            while due < until && !stop.load(Ordering::Relaxed) {
                let was_free = Instant::now() < due;
                wait(due).await;
                let late = due.elapsed();
                let succeeded = failed.record(connection.measured_exchange(&target).await, &mut connection).await?;
                if succeeded && due > begin + WARM_UP {
                    latencies.responses.push(due.elapsed().as_secs_f64() * 1e6);
                    if was_free {
                        latencies.late.push(late.as_secs_f64() * 1e6);
                    }
                }
                due += between * connections;
            }
            Ok((latencies, failed))
        });
    }
    let mut all = Latencies::default();
    let mut failures = vec![];
    for (mut latencies, failed) in join_all(tasks, length).await? {
        all.responses.append(&mut latencies.responses);
        all.late.append(&mut latencies.late);
        failures.push(failed);
    }
    Failures::check(failures, all.responses.len() as u64)?;
    Ok(all)
}

/// Waits until `due`: sleeps first, then polls.
async fn wait(due: Instant) {
    if let Some(far) = due.checked_duration_since(Instant::now() + POLL_BEFORE) {
        tokio::time::sleep(far).await;
    }
    while Instant::now() < due {
        // The runtime polls the sockets before it runs this task again.
        tokio::task::yield_now().await;
    }
}

/// Returns the results of all tasks, or the first error.
async fn join_all<T: 'static>(mut tasks: JoinSet<Result<T>>, length: Duration) -> Result<Vec<T>> {
    let mut results = vec![];
    let gather = async {
        while let Some(result) = tasks.join_next().await {
            results.push(result.context("the task of a connection panicked")??);
        }
        Ok(())
    };
    match tokio::time::timeout(length + RESPONSE_TIMEOUT, gather).await {
        Ok(Ok(())) => Ok(results),
        Ok(Err(error)) => Err(error),
        Err(_) => bail!("no response for {RESPONSE_TIMEOUT:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_section_tells_where_the_body_is() -> Result<()> {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\ncontent-le")?, None);
        assert_eq!(parse_head(b"HTTP/1.1 404 X\r\nA: b\r\nContent-Length: 3\r\n\r\nab")?, Some((404, 43..46)));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        Ok(())
    }
}
