//! The gateways that witgate is compared with: installed below target/bench, started on the gateway's core, one worker each.
//!
//! A peer that cannot be had here is a reason in the table, never the end of the run. Must not know: witgate, load, tables.

mod envoy;
mod extism;
mod haproxy;
mod install;
mod nginx;
mod node;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cases::Running;
use crate::machine::{self, Cores};

/// How the error of a peer begins that is installed and does not run.
pub(crate) const NOT_STARTED: &str = "it did not start";
/// What a peer may take to start.
const START_MAX: Duration = Duration::from_secs(30);

/// Where peers live and what they pass on to.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) upstream: SocketAddr,
    pub(crate) cores: Cores,
}

/// A peer that runs; dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) version: String,
    pub(crate) cases: Vec<Running>,
    _process: Process,
}

/// How a peer is installed and started, by its name in `--peers`.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// What was set for this comparison, for the page.
    pub(crate) settings: &'static str,
    pub(crate) start: fn(&Place) -> Result<Peer>,
}

/// All of them, in the table's order.
pub(crate) const PEERS: [Known; 5] = [
    Known { name: "nginx", settings: nginx::SETTINGS, start: nginx::start },
    Known { name: "haproxy", settings: haproxy::SETTINGS, start: haproxy::start },
    Known { name: "envoy", settings: envoy::SETTINGS, start: envoy::start },
    Known { name: "node", settings: node::SETTINGS, start: node::start },
    Known { name: "extism", settings: extism::SETTINGS, start: extism::start },
];

impl Place {
    /// A peer's own folder.
    fn of(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        Ok(folder)
    }

    /// Starts a peer on the gateway's core. What it says goes into its folder.
    fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.of(name)?.join("log");
        let out = File::create(&log).with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::null()).stderr(out);
        let program = command.get_program().to_string_lossy().into_owned();
        let child =
            machine::on(self.cores.gateway, || command.spawn().with_context(|| format!("{program} cannot be run")))?;
        Ok(Process { child, log })
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn id(&self) -> u32 {
        self.child.id()
    }

    /// The port that a peer prints as its first line.
    fn port(&mut self) -> Result<SocketAddr> {
        let mut line = String::new();
        let out = self.child.stdout.take().context("its output is not piped")?;
        BufReader::new(out).read_line(&mut line)?;
        match line.trim().parse::<u16>() {
            Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
            Err(_) => bail!("{NOT_STARTED}: {}", self.last_words()),
        }
    }

    /// Waits until somebody listens there.
    fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if self.child.try_wait()?.is_some() || began.elapsed() > START_MAX {
                bail!("{NOT_STARTED}: {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word why");
        // Some print their whole configuration.
        line.trim().chars().take(240).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Not killed at once: a master takes its workers with it.
        if let Some(id) = i32::try_from(self.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago, for peers that cannot choose one and say which.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Writes a configuration with `${NAME}` replaced.
fn configure(template: &str, values: &[(&str, String)], path: &Path) -> Result<()> {
    let text =
        values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    fs::write(path, text).with_context(|| format!("{}", path.display()))
}

/// A case of a peer.
fn running(id: &'static str, address: SocketAddr, path: &str, process: &Process) -> Running {
    Running { id, address, path: path.to_owned(), process: process.id() }
}
