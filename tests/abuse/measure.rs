//! Measures an attack: the gateway's memory, sockets and CPU time, and the latency of normal
//! traffic on the same thread.
//!
//! This module does not know: any particular attack.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::Gateway;

/// How much the gateway's memory may grow under a flood, in bytes.
pub(crate) const GROWTH_MAX: u64 = 16 << 20;
/// The longest time that a normal request may take during an attack, on a busy machine. The attack
/// must not occupy the thread.
const LATENCY_MAX: Duration = Duration::from_secs(2);

/// A memory value of `/proc/PID/status` in bytes: `VmRSS:` is resident, `VmHWM:` its peak.
pub(crate) fn memory(gateway: &Gateway, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let found = status
        .lines()
        .find_map(|candidate| candidate.strip_prefix(line)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(found.with_context(|| format!("/proc/PID/status has no {line}"))? << 10)
}

/// How many connections from these client ports the gateway holds. A connection that a process owns
/// has an inode (proc_net_tcp(5)).
///
/// The number of file descriptors would not tell: it includes other clients and upstreams.
pub(crate) fn held_connections(gateway: SocketAddr, clients: &HashSet<u16>) -> Result<usize> {
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

/// CPU time of the gateway so far, in clock ticks of 10 ms.
fn cpu_ticks(gateway: &Gateway) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// A running measurement.
pub(crate) struct Measurement {
    memory_before: u64,
    cpu_before: u64,
    began: Instant,
    stop: Arc<AtomicBool>,
    normal_traffic: JoinHandle<Result<Vec<Duration>>>,
}

/// The result of a measurement.
pub(crate) struct Impact {
    /// Growth of the peak resident memory, in bytes.
    pub(crate) growth: u64,
    /// CPU time of the gateway.
    pub(crate) cpu: Duration,
    /// Wall-clock time of the measurement.
    pub(crate) took: Duration,
    /// The number of normal requests, their P99 and their longest latency.
    pub(crate) served: usize,
    pub(crate) p99: Duration,
    pub(crate) slowest: Duration,
}

impl Measurement {
    /// Starts the measurement, and normal traffic on a connection of its own.
    pub(crate) fn begin(gateway: &Gateway) -> Result<Self> {
        // 5 resets the peak to the resident memory (proc(5), clear_refs).
        fs::write(format!("/proc/{}/clear_refs", gateway.id()), "5")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut client) = (stop.clone(), gateway.client()?);
        let normal_traffic = std::thread::spawn(move || {
            let mut times = vec![];
            while !stopped.load(Ordering::Relaxed) || times.len() < 3 {
                let began = Instant::now();
                let response = client.get("/normal", &[]).context("a normal request failed")?;
                ensure!(response.status == 200, "a normal request got {}", response.status);
                times.push(began.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            times.sort_unstable();
            Ok(times)
        });
        Ok(Self {
            memory_before: memory(gateway, "VmRSS:")?,
            cpu_before: cpu_ticks(gateway)?,
            began: Instant::now(),
            stop,
            normal_traffic,
        })
    }

    /// Stops the normal traffic and returns the result.
    pub(crate) fn end(self, gateway: &Gateway) -> Result<Impact> {
        let took = self.began.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        let times =
            self.normal_traffic.join().map_err(|_| anyhow::anyhow!("the thread of the normal traffic panicked"))??;
        let impact = Impact {
            growth: memory(gateway, "VmHWM:")?.saturating_sub(self.memory_before),
            cpu: Duration::from_millis(10 * (cpu_ticks(gateway)? - self.cpu_before)),
            took,
            served: times.len(),
            p99: times[times.len() * 99 / 100],
            slowest: times[times.len() - 1],
        };
        ensure!(impact.slowest <= LATENCY_MAX, "a normal request took {:?}", impact.slowest);
        Ok(impact)
    }
}

/// The head of the table whose rows [`Impact::row`] makes.
pub(crate) const HEAD: &str = "| attack | outcome | took ms | CPU ms | memory + KiB | normal requests | P99 ms | slowest ms |\n|---|---|---|---|---|---|---|---|";

impl Impact {
    /// A row of the table.
    pub(crate) fn row(&self, name: &str, outcome: &str) -> String {
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
