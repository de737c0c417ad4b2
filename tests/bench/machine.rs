//! What the system reports: cores, CPU and memory of a gateway's processes, a description of the
//! machine, and its noise.
//!
//! The CPU and memory of a gateway include all descendants of its process.
//!
//! This module does not know: cases, load.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of gateway and load. They are the same if there is only one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) gateway: usize,
    pub(crate) load: usize,
    /// Two cores for the gateway and two for the load, if there are four.
    pub(crate) four: Option<[usize; 4]>,
    pub(crate) count: usize,
}

impl Cores {
    /// Puts the gateway on the first core that this process may use, load and upstream on the last.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let (first, last) = (
            cores.first().context("this process may use no core")?,
            cores.last().context("this process may use no core")?,
        );
        let four = cores.first_chunk::<4>().copied();
        Ok(Self { gateway: *first, load: *last, four, count: cores.len() })
    }
}

fn set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

/// Binds the calling thread to a core while `work` runs. Processes that it starts inherit the
/// binding.
pub(crate) fn run_on_core<T>(core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, &set(&[core]))?;
    let done = work();
    sched_setaffinity(None, &before)?;
    done
}

/// Binds all threads of a running process to these cores.
pub(crate) fn pin(id: u32, cores: &[usize]) -> Result<()> {
    let set = set(cores);
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let task: i32 = task?.file_name().to_string_lossy().parse()?;
        // The thread may have ended meanwhile.
        let _ = sched_setaffinity(Pid::from_raw(task), &set);
    }
    Ok(())
}

/// The ids of a process and its descendants.
fn tree(id: u32) -> Vec<u32> {
    let mut parents = vec![];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if let Some(parent) = stat(id).and_then(|fields| fields.get(1)?.parse::<u32>().ok()) {
            parents.push((id, parent));
        }
    }
    let mut tree = vec![id];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(parents.iter().filter(|pair| pair.1 == parent).map(|pair| pair.0));
        next += 1;
    }
    tree
}

/// The fields of `/proc/PID/stat`, beginning with the third one (state) of proc(5).
fn stat(id: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(text.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect())
}

/// User and system time so far of a process and its descendants, in microseconds.
pub(crate) fn cpu(id: u32) -> Result<f64> {
    let mut ticks = 0.0;
    for id in tree(id) {
        let Some(fields) = stat(id) else { continue };
        for field in [11, 12] {
            ticks += fields.get(field).context("/proc/PID/stat has too few fields")?.parse::<f64>()?;
        }
    }
    Ok(ticks * 10_000.0)
}

/// Resident memory of a process and its descendants, in MiB.
pub(crate) fn rss(id: u32) -> Result<f64> {
    let mut pages = 0.0;
    for id in tree(id) {
        let Ok(text) = fs::read_to_string(format!("/proc/{id}/statm")) else { continue };
        pages += text.split(' ').nth(1).context("/proc/PID/statm has too few fields")?.parse::<f64>()?;
    }
    Ok(pages * 4096.0 / 1_048_576.0)
}

/// Runs a program and returns the first line that it prints.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().find(|line| !line.trim().is_empty())?.trim().to_owned())
}

/// Describes the machine: processor, cores, memory, kernel.
pub(crate) fn describe(cores: Cores) -> String {
    let of = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map(|pair| pair.1.trim().to_owned()).unwrap_or_default()
    };
    let kib: f64 =
        of("/proc/meminfo", "MemTotal").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    let processor = of("/proc/cpuinfo", "model name");
    let virtual_one = if of("/proc/cpuinfo", "flags").contains("hypervisor") { ", a virtual machine" } else { "" };
    format!(
        "{processor}, {} cores, {:.0} GiB{virtual_one}; Linux {}, {}",
        cores.count,
        kib / 1_048_576.0,
        kernel.trim(),
        system.trim_matches('"'),
    )
}

/// CPU counters of all cores since the system started, for the noise of other virtual machines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    total: f64,
    stolen: f64,
}

impl Noise {
    /// Reads the counters.
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields: Vec<f64> =
            text.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
        Self { total: fields.iter().take(8).sum(), stolen: fields.get(7).copied().unwrap_or_default() }
    }

    /// The share of CPU time since then that the hypervisor gave to other machines, in percent.
    pub(crate) fn stolen(&self) -> f64 {
        let now = Self::now();
        100.0 * (now.stolen - self.stolen) / (now.total - self.total).max(1.0)
    }
}

/// The load average of the last minute. Other processes are running if it is above 0 before the
/// start.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
