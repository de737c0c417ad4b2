//! What all peers share: where they are installed, and how their processes start and stop.
//!
//! This module does not know: any particular peer.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::tls::Authority;
use rustix::process::{Pid, Signal, kill_process};

use crate::cases::RunningCase;
use crate::machine::{self, Cores};

/// The beginning of the error of a peer that is installed but does not start.
pub(crate) const NOT_STARTED: &str = "it did not start";
/// Limit for the start of a peer.
const START_MAX: Duration = Duration::from_secs(30);

/// Where peers are installed, the cores that they use, and their upstream.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) folder: PathBuf,
    pub(crate) upstream: SocketAddr,
    pub(crate) cores: Cores,
    /// The certificate of every TLS listener, and its key.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Where a peer without a filter serves which protocol.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    /// HTTP/1.1.
    pub(crate) plain: SocketAddr,
    /// HTTP/1.1 and HTTP/2 over TLS.
    pub(crate) tls: SocketAddr,
    /// HTTP/2 in plain text.
    pub(crate) http2: SocketAddr,
    /// What precedes the path.
    pub(crate) path: String,
    pub(crate) process: u32,
}

/// A running peer. It is stopped on drop.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) version: String,
    pub(crate) cases: Vec<RunningCase>,
    /// None if the peer takes no part in the comparison of bodies and HTTP/2.
    pub(crate) ports: Option<Ports>,
    pub(super) _process: Process,
}

impl Environment {
    /// Issues the certificate of all TLS listeners.
    pub(crate) fn new(folder: PathBuf, upstream: SocketAddr, cores: Cores) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        let issued = Authority::new("bench")?.issue(&["bench.test", "127.0.0.1"])?;
        fs::write(&certificate, issued.certificate)?;
        fs::write(&key, issued.key)?;
        Ok(Self { folder, upstream, cores, certificate, key })
    }

    /// The same with another upstream.
    pub(crate) fn with_upstream(&self, upstream: SocketAddr) -> Self {
        Self {
            folder: self.folder.clone(),
            upstream,
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ..*self
        }
    }

    /// The folder of a peer, which is created if it is missing.
    pub(crate) fn folder_of(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        Ok(folder)
    }

    /// Starts a peer on the gateway's core. Its standard error goes to a file in its folder.
    pub(crate) fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        self.spawn_on(self.cores.gateway, name, command)
    }

    /// Starts a process on a core.
    pub(super) fn spawn_on(&self, core: usize, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.folder_of(name)?.join("log");
        let out = File::create(&log).with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::null()).stderr(out);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = machine::run_on_core(core, || command.spawn().with_context(|| format!("cannot run {program}")))?;
        Ok(Process { child, log })
    }
}

/// The process of a running peer. It is stopped on drop.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads the port that the peer prints as its first line.
    pub(super) fn port(&mut self) -> Result<SocketAddr> {
        let mut line = String::new();
        let out = self.child.stdout.take().context("its output is not piped")?;
        BufReader::new(out).read_line(&mut line)?;
        match line.trim().parse::<u16>() {
            Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
            Err(_) => bail!("{NOT_STARTED}: {}", self.last_log_line()),
        }
    }

    /// Waits until the peer accepts connections at this address.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if self.child.try_wait()?.is_some() || began.elapsed() > START_MAX {
                bail!("{NOT_STARTED}: {}", self.last_log_line());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn last_log_line(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it printed no reason");
        // Some peers print their whole configuration in one line.
        line.trim().chars().take(240).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM first, so that a master process can stop its workers.
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

/// Returns an address that was free a moment ago, for peers that cannot choose and report a port.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Writes a configuration, with each `${NAME}` of the template replaced.
pub(crate) fn configure(template: &str, values: &[(&str, String)], path: &Path) -> Result<()> {
    let text =
        values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    fs::write(path, text).with_context(|| format!("{}", path.display()))
}

/// Builds a running case of a peer.
pub(super) fn running_case(id: &'static str, address: SocketAddr, path: &str, process: &Process) -> RunningCase {
    RunningCase { id, address, path: path.to_owned(), process: process.id() }
}
