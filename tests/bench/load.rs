//! The load: many keep-alive connections on one thread, closed loop (as fast as answers come) and open loop (at a given rate).
//!
//! Open loop measures from the moment at which a request should have gone out: a gateway that stalls is charged for all who had to wait. The
//! runtime's timers have a grain of a millisecond, so the last bit before a request is waited for awake. Must not know: gateways.

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

/// Fields of a browser's request, so that a filter has something to look through.
const FIELDS: &str = "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\naccept: text/html,application/xhtml+xml\r\naccept-encoding: gzip, br\r\naccept-language: en-GB,en;q=0.9\r\ncache-control: no-cache\r\ncookie: session=abcdef0123456789; theme=dark\r\nauthorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc\r\n";
/// The field that every filter looks at.
pub(crate) const KEY: &str = "x-api-key: s3cret\r\n";
/// One failed request in so many is borne.
const FAILED_SHARE: u64 = 200;
/// An answer that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long before its time a request is waited for awake: more than the timer's grain.
const AWAKE: Duration = Duration::from_millis(3);
/// Answers of the beginning that are not counted in open loop: connections and caches warm up.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// A thread's runtime, for load and upstream; on its core only while it works, so that what is started between has them all.
#[derive(Debug)]
pub(crate) struct Driver {
    runtime: Runtime,
    core: usize,
}

impl Driver {
    /// On this core.
    pub(crate) fn new(core: usize) -> Result<Self> {
        Ok(Self { runtime: Builder::new_current_thread().enable_all().build()?, core })
    }

    /// Runs to the end.
    pub(crate) fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        machine::on(self.core, || self.runtime.block_on(work))
    }
}

/// Where to and what.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    request: Arc<[u8]>,
}

impl Target {
    /// A GET with the fields of a browser and these.
    pub(crate) fn new(address: SocketAddr, path: &str, fields: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\n{FIELDS}{fields}\r\n");
        Self { address, request: request.into_bytes().into() }
    }
}

/// A status and a body.
#[derive(Debug)]
pub(crate) struct Answer {
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

    /// One request and its answer; gives where the body is in the buffer.
    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, std::ops::Range<usize>)> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let mut whole = None;
        loop {
            if whole.is_none() {
                whole = head(&self.buffer[..filled])?;
            }
            if let Some((status, ref body)) = whole
                && filled >= body.end
            {
                ensure!(filled == body.end, "the answer is longer than it says");
                return Ok((status, body.clone()));
            }
            ensure!(filled < self.buffer.len(), "the answer does not fit");
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the connection was closed before the answer");
            filled += read;
        }
    }

    /// An exchange of the measurement: nothing but 200 and the upstream's body will do.
    async fn measured(&mut self, target: &Target) -> Result<()> {
        let (status, body) = self.exchange(&target.request).await?;
        if status != 200 || body.len() != upstream::BODY {
            let said: String = String::from_utf8_lossy(&self.buffer[body]).chars().take(100).collect();
            bail!("status {status}: {said}");
        }
        Ok(())
    }
}

/// Status and place of the body, once the head is there.
fn head(bytes: &[u8]) -> Result<Option<(u16, std::ops::Range<usize>)>> {
    let Some(end) = end_of_head(bytes) else { return Ok(None) };
    let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let mut length = None;
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        const NAME: &[u8] = b"content-length:";
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            length = std::str::from_utf8(&line[NAME.len()..]).ok().and_then(|text| text.trim().parse::<usize>().ok());
        }
    }
    let length = length.context("an answer without content-length")?;
    Ok(Some((status.context("no status")?, end..end + length)))
}

/// One request on a connection of its own.
pub(crate) async fn once(target: &Target) -> Result<Answer> {
    let exchange = async {
        let mut connection = Connection::open(target.address).await?;
        let (status, body) = connection.exchange(&target.request).await?;
        Ok(Answer { status, body: String::from_utf8_lossy(&connection.buffer[body]).into_owned() })
    };
    tokio::time::timeout(PATIENCE, exchange).await.context("no answer")?
}

/// Requests answered over all connections, each of which sends the next as soon as it has its answer; ends after `length`, or when
/// there are `most` answers.
pub(crate) async fn closed(target: &Target, connections: usize, length: Duration, most: u64) -> Result<u64> {
    let until = Instant::now() + length;
    let answered = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (target, answered) = (target.clone(), answered.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(target.address).await?;
            let mut failed = Failed::default();
            while Instant::now() < until && answered.load(Ordering::Relaxed) < most {
                if failed.is_well(connection.measured(&target).await, &mut connection).await? {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(failed)
        });
    }
    let failed = all(tasks, length).await?;
    let answered = answered.load(Ordering::Relaxed);
    Failed::bearable(failed, answered)?;
    Ok(answered)
}

/// Requests without the right answer: a few are a machine's hiccup (a timeout, a connection closed just then), more are a wrong figure.
#[derive(Debug, Default)]
struct Failed {
    count: u64,
    first: Option<anyhow::Error>,
}

impl Failed {
    /// Notes a failure and connects anew.
    async fn is_well(&mut self, result: Result<()>, connection: &mut Connection) -> Result<bool> {
        let Err(error) = result else { return Ok(true) };
        self.count += 1;
        self.first.get_or_insert(error);
        *connection = Connection::open(connection.address).await?;
        Ok(false)
    }

    fn bearable(all: impl IntoIterator<Item = Self>, answered: u64) -> Result<()> {
        let mut count = 0;
        let mut first = None;
        for failed in all {
            count += failed.count;
            first = first.or(failed.first);
        }
        match first {
            Some(error) if count * FAILED_SHARE > answered => {
                Err(error.context(format!("{count} requests failed, {answered} did not; the first")))
            }
            _ => Ok(()),
        }
    }
}

/// What open loop saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies {
    /// From the time at which it should have been sent to the whole answer, µs.
    pub(crate) answers: Vec<f64>,
    /// How much later than that it was sent, on a connection that was free, µs: the load's own error.
    pub(crate) late: Vec<f64>,
}

/// `rate` requests a second, each connection at its own times; ends after `length` or when `stop` says so.
pub(crate) async fn open(
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
            let mut seen = Latencies::default();
            let mut failed = Failed::default();
            let mut due = begin + between * index;
            while due < until && !stop.load(Ordering::Relaxed) {
                let was_free = Instant::now() < due;
                wait(due).await;
                let late = due.elapsed();
                let is_well = failed.is_well(connection.measured(&target).await, &mut connection).await?;
                if is_well && due > begin + WARM_UP {
                    seen.answers.push(due.elapsed().as_secs_f64() * 1e6);
                    if was_free {
                        seen.late.push(late.as_secs_f64() * 1e6);
                    }
                }
                due += between * connections;
            }
            Ok((seen, failed))
        });
    }
    let mut all_seen = Latencies::default();
    let mut all_failed = vec![];
    for (mut seen, failed) in all(tasks, length).await? {
        all_seen.answers.append(&mut seen.answers);
        all_seen.late.append(&mut seen.late);
        all_failed.push(failed);
    }
    Failed::bearable(all_failed, all_seen.answers.len() as u64)?;
    Ok(all_seen)
}

async fn wait(due: Instant) {
    if let Some(far) = due.checked_duration_since(Instant::now() + AWAKE) {
        tokio::time::sleep(far).await;
    }
    while Instant::now() < due {
        // The runtime looks at the sockets before it comes back here.
        tokio::task::yield_now().await;
    }
}

/// What the tasks give, or the first error.
async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>, length: Duration) -> Result<Vec<T>> {
    let mut results = vec![];
    let gather = async {
        while let Some(result) = tasks.join_next().await {
            results.push(result.context("a connection's task")??);
        }
        Ok(())
    };
    match tokio::time::timeout(length + PATIENCE, gather).await {
        Ok(Ok(())) => Ok(results),
        Ok(Err(error)) => Err(error),
        Err(_) => bail!("no answer for {PATIENCE:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_where_the_body_is() -> Result<()> {
        assert_eq!(head(b"HTTP/1.1 200 OK\r\ncontent-le")?, None);
        assert_eq!(head(b"HTTP/1.1 404 X\r\nA: b\r\nContent-Length: 3\r\n\r\nab")?, Some((404, 43..46)));
        assert!(head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        Ok(())
    }
}
