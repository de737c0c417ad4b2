//! Bodies, HTTP/2, TLS and idle connections, side by side with the peers, and requests of a second
//! load generator.
//!
//! Here nginx is the upstream of every gateway, on the load's core. So these figures are comparable
//! with each other and not with those of the closed loop, whose upstream answers in batches.
//!
//! This module does not know: tables.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::Setup;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::generators::Generators;
use crate::machine;
use crate::options::Lengths;
use crate::peers::{self, Environment, PEERS, Ports};
use crate::progress::Progress;

/// Bytes of a download and of an upload.
const BODY_BYTES: u64 = 64 << 20;
const MEBIBYTE: u64 = 1 << 20;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    WrkGet,
    WrkPost,
    Http1Tls,
    Http2,
    Http2Tls,
    Download,
    DownloadTls,
    Upload,
    UploadTls,
    Idle,
}

/// All rows, in the table's order.
pub(crate) const MEASURES: [(Measure, &str); 10] = [
    (Measure::WrkGet, "GET, wrk, 64 connections, µs per request"),
    (Measure::WrkPost, "POST with 1 KB, wrk, 64 connections, µs per request"),
    (Measure::Http1Tls, "HTTP/1.1 over TLS, 64 connections, µs per request"),
    (Measure::Http2, "HTTP/2, 16 connections with 16 streams, µs per request"),
    (Measure::Http2Tls, "HTTP/2 over TLS, 16 connections with 16 streams, µs per request"),
    (Measure::Download, "download of 64 MiB, µs per MiB"),
    (Measure::DownloadTls, "download of 64 MiB over TLS, µs per MiB"),
    (Measure::Upload, "upload of 64 MiB, µs per MiB"),
    (Measure::UploadTls, "upload of 64 MiB over TLS, µs per MiB"),
    (Measure::Idle, "an idle keep-alive connection, KiB"),
];

/// The gateways that take part, in the table's order.
pub(crate) const GATEWAYS: [(&str, &str); 4] =
    [("witgate", "witgate"), ("nginx", "nginx"), ("haproxy", "HAProxy"), ("envoy", "Envoy")];

/// The readings of each row and gateway, and why some are missing.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    pub(crate) readings: BTreeMap<(Measure, &'static str), Vec<f64>>,
    pub(crate) missing: Vec<String>,
    pub(crate) versions: Vec<String>,
    pub(crate) connections: usize,
}

impl Transfers {
    /// The smallest reading, because noise only adds.
    pub(crate) fn minimum(&self, measure: Measure, gateway: &'static str) -> Option<f64> {
        crate::cases::minimum(self.readings.get(&(measure, gateway))?)
    }
}

/// Measures all rows for witgate and the chosen peers.
pub(crate) fn measure(
    environment: &Environment,
    chosen: &[&str],
    lengths: Lengths,
    progress: &mut Progress,
) -> Result<Transfers> {
    raise_file_limit()?;
    let generators = Generators::install(environment)?;
    let mut results =
        Transfers { versions: generators.versions(), connections: lengths.idle_connections, ..Transfers::default() };
    let upstream = peers::nginx_upstream(environment, BODY_BYTES)?;
    let environment = &environment.with_upstream(upstream.address);
    let file = environment.folder.join("upload");
    std::fs::write(&file, vec![b'x'; BODY_BYTES as usize])?;
    let runner = Runner { generators, file, lengths };
    let witgate = start_witgate(environment)?;
    let own = Ports {
        plain: witgate.plain,
        tls: witgate.tls,
        http2: witgate.plain,
        path: String::new(),
        process: witgate.gateway.id(),
    };
    let mut running = vec![("witgate", own)];
    let mut started = vec![];
    for known in PEERS.iter().filter(|known| chosen.contains(&known.name)) {
        if !GATEWAYS.iter().any(|(name, _)| *name == known.name) {
            continue;
        }
        progress.step(&format!("bodies and HTTP/2: starting {}", known.name));
        match (known.start)(environment) {
            Ok(peer) => {
                running.extend(peer.ports.clone().map(|ports| (known.name, ports)));
                started.push(peer);
            }
            Err(error) => results.missing.push(format!("{}: {error:#}", known.name)),
        }
    }
    for round in 0..=lengths.transfer_rounds {
        for (measure, title) in MEASURES {
            if measure == Measure::Idle && round != 1 {
                continue;
            }
            progress.step(&format!("round {round} of {}: {title}", lengths.transfer_rounds));
            for (gateway, ports) in &running {
                match runner.reading(measure, ports) {
                    // The first round is a warm-up.
                    Ok(reading) if round > 0 => results.readings.entry((measure, *gateway)).or_default().push(reading),
                    Ok(_) => {}
                    Err(error) => results.missing.push(format!("{gateway}, {title}: {error:#}")),
                }
            }
        }
    }
    results.missing.sort();
    results.missing.dedup();
    Ok(results)
}

/// What generates the load of a row.
struct Runner {
    generators: Generators,
    file: PathBuf,
    lengths: Lengths,
}

impl Runner {
    /// CPU time of the gateway per request or MiB in µs; for idle connections, memory of one in
    /// KiB.
    fn reading(&self, measure: Measure, ports: &Ports) -> Result<f64> {
        if measure == Measure::Idle {
            return self.idle(ports);
        }
        let before = machine::cpu(ports.process)?;
        let units = self.run(measure, ports)?;
        let used = machine::cpu(ports.process)? - before;
        ensure!(used > 0.0 && units > 0, "the gateway used no time");
        Ok(used / units as f64)
    }

    /// Generates the load of one row, and returns the number of requests or MiB.
    fn run(&self, measure: Measure, ports: &Ports) -> Result<u64> {
        let Ports { plain, tls, http2, path, .. } = ports;
        let (times, requests) = (self.lengths.downloads, self.lengths.requests);
        match measure {
            Measure::WrkGet => {
                self.generators.wrk(&format!("http://{plain}{path}/small"), None, None, self.lengths.closed)
            }
            Measure::WrkPost => {
                let body = "x".repeat(1024);
                self.generators.wrk(&format!("http://{plain}{path}/small"), Some(&body), None, self.lengths.closed)
            }
            Measure::Http1Tls => self.generators.http1(&format!("https://{tls}{path}/small"), requests),
            Measure::Http2 => self.generators.http2(&format!("http://{http2}{path}/small"), requests),
            Measure::Http2Tls => self.generators.http2(&format!("https://{tls}{path}/small"), requests),
            Measure::Download => self.download(&format!("http://{plain}{path}/large"), times),
            Measure::DownloadTls => self.download(&format!("https://{tls}{path}/large"), times),
            Measure::Upload => self.upload(&format!("http://{plain}{path}/upload"), times),
            Measure::UploadTls => self.upload(&format!("https://{tls}{path}/upload"), times),
            Measure::Idle => Ok(0),
        }
    }

    fn download(&self, url: &str, times: usize) -> Result<u64> {
        self.generators.download(url, BODY_BYTES, times)?;
        Ok(times as u64 * BODY_BYTES / MEBIBYTE)
    }

    fn upload(&self, url: &str, times: usize) -> Result<u64> {
        for _ in 0..times {
            self.generators.upload(url, &self.file, BODY_BYTES)?;
        }
        Ok(times as u64 * BODY_BYTES / MEBIBYTE)
    }

    /// Opens connections, each of which makes one request, and returns the growth of the gateway's
    /// memory for each. Afterwards the first and the last must still be served.
    fn idle(&self, ports: &Ports) -> Result<f64> {
        let request = format!("GET {}/small HTTP/1.1\r\nhost: bench.test\r\n\r\n", ports.path);
        let open = |count: usize| (0..count).map(|_| open(ports.plain, &request)).collect::<Result<Vec<_>>>();
        drop(open(self.lengths.idle_connections / 10)?);
        std::thread::sleep(self.lengths.settle);
        let before = machine::rss(ports.process)?;
        let mut connections = open(self.lengths.idle_connections)?;
        std::thread::sleep(self.lengths.settle);
        let after = machine::rss(ports.process)?;
        let last = connections.len() - 1;
        for at in [0, last] {
            let connection = connections.get_mut(at).context("no connection is open")?;
            exchange(connection, &request).with_context(|| format!("idle connection {at}"))?;
        }
        Ok((after - before) * 1024.0 / self.lengths.idle_connections as f64)
    }
}

fn open(address: SocketAddr, request: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    exchange(&mut stream, request)?;
    Ok(stream)
}

/// Sends a request and reads its response, whose body is 1 KB.
fn exchange(stream: &mut TcpStream, request: &str) -> Result<()> {
    stream.write_all(request.as_bytes())?;
    let (mut response, mut buffer) = (vec![], [0; 4096]);
    while !response.ends_with(&[b'x'; 1024]) {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the gateway closed the connection: {}", String::from_utf8_lossy(&response));
        response.extend_from_slice(&buffer[..read]);
    }
    ensure!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
    Ok(())
}

/// This process and the gateways hold many connections.
fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

struct RunningWitgate {
    gateway: harness::Gateway,
    plain: SocketAddr,
    tls: SocketAddr,
}

/// Starts witgate with a plain-text and a TLS listener. Plain text carries both HTTP versions.
fn start_witgate(environment: &Environment) -> Result<RunningWitgate> {
    let plain = peers::free_address()?;
    let Environment { certificate, key, upstream, cores, .. } = environment;
    let tls = format!(
        "tls: {{certificates: [{{certificate: {}, key: {}}}]}}}}, {{name: plain, address: \"{plain}\"",
        certificate.display(),
        key.display()
    );
    let yaml = format!(
        "timeouts: {{idle: 10m}}\nlimits: {{connections: 20000, connections_per_client: 20000, in_flight_per_client: 1024}}\nupstreams: {{u: {{endpoints: [\"http://{upstream}\"], idle_connections: 512}}}}\nroutes: [{{upstream: u}}]\n"
    );
    // The plain-text listener is the last one, and a fixed port is needed to name the other.
    let address = peers::free_address()?;
    let gateway = machine::run_on_core(cores.gateway, || {
        Setup::new(&yaml)?.at(address).listener(&tls).workers(1).level("warn").start()
    })?;
    Ok(RunningWitgate { gateway, plain, tls: address })
}
