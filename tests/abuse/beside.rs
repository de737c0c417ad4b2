//! What an attack does to the gateway and to others: memory, sockets, CPU, and the neighbours' latency.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::Gateway;

/// What the gateway may grow by under a flood.
pub(crate) const GROWTH_MAX: u64 = 16 << 20;
/// The longest that a neighbour may wait, also on a busy machine: the attack must not have the thread for itself.
const NEIGHBOUR_MAX: Duration = Duration::from_secs(2);

/// Resident memory, and its peak, in bytes.
fn memory(gateway: &Gateway, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let found =
        status.lines().find_map(|own| own.strip_prefix(line)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(found.with_context(|| format!("no {line} in /proc"))? << 10)
}

/// How many of these clients the gateway still holds: connections from their ports to it that a process has (an inode, see proc_net_tcp(5)).
///
/// Not by its file descriptors: those of its other clients and of the upstream come and go.
pub(crate) fn held(gateway: SocketAddr, clients: &HashSet<u16>) -> Result<usize> {
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let is_held = |line: &&str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, local, remote, _, _, _, _, _, _, inode, ..] => {
            inode != "0"
                && port(local) == Some(gateway.port())
                && port(remote).is_some_and(|port| clients.contains(&port))
        }
        _ => false,
    };
    Ok(fs::read_to_string("/proc/net/tcp")?.lines().filter(is_held).count())
}

/// CPU time so far, in clock ticks of 10 ms.
fn cpu(gateway: &Gateway) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// A measurement that began.
pub(crate) struct Beside {
    before: u64,
    cpu: u64,
    began: Instant,
    stop: Arc<AtomicBool>,
    neighbour: JoinHandle<Result<Vec<Duration>>>,
}

/// What it came to.
pub(crate) struct Felt {
    pub(crate) growth: u64,
    pub(crate) cpu: Duration,
    pub(crate) took: Duration,
    pub(crate) served: usize,
    pub(crate) p99: Duration,
    pub(crate) slowest: Duration,
}

impl Beside {
    /// Notes the memory, and begins normal traffic on a connection of its own.
    pub(crate) fn begin(gateway: &Gateway) -> Result<Self> {
        // 5 sets the peak back to what is used now (proc(5), clear_refs).
        fs::write(format!("/proc/{}/clear_refs", gateway.id()), "5")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut client) = (stop.clone(), gateway.client()?);
        let neighbour = std::thread::spawn(move || {
            let mut times = vec![];
            while !stopped.load(Ordering::Relaxed) || times.len() < 3 {
                let began = Instant::now();
                let response = client.get("/normal", &[]).context("a neighbour is not served")?;
                ensure!(response.status == 200, "a neighbour got {}", response.status);
                times.push(began.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            times.sort_unstable();
            Ok(times)
        });
        Ok(Self { before: memory(gateway, "VmRSS:")?, cpu: cpu(gateway)?, began: Instant::now(), stop, neighbour })
    }

    /// Ends the traffic.
    pub(crate) fn end(self, gateway: &Gateway) -> Result<Felt> {
        let took = self.began.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        let times = self.neighbour.join().map_err(|_| anyhow::anyhow!("the neighbour panicked"))??;
        let felt = Felt {
            growth: memory(gateway, "VmHWM:")?.saturating_sub(self.before),
            cpu: Duration::from_millis(10 * (cpu(gateway)? - self.cpu)),
            took,
            served: times.len(),
            p99: times[times.len() * 99 / 100],
            slowest: times[times.len() - 1],
        };
        ensure!(felt.slowest <= NEIGHBOUR_MAX, "a neighbour waited {:?}", felt.slowest);
        Ok(felt)
    }
}

/// Head of the table that `Felt` prints a line of.
pub(crate) const HEAD: &str = "| attack | outcome | took ms | CPU ms | memory + KiB | neighbour: served | P99 ms | slowest ms |\n|---|---|---|---|---|---|---|---|";

impl Felt {
    /// A line of the table.
    pub(crate) fn line(&self, name: &str, outcome: &str) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        format!(
            "| {name} | {outcome} | {:.0} | {:.0} | {} | {} | {:.1} | {:.1} |",
            ms(self.took),
            ms(self.cpu),
            self.growth >> 10,
            self.served,
            ms(self.p99),
            ms(self.slowest)
        )
    }
}
