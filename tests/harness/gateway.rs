//! Starts the real binary and ends it again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Client, Response, wait_until, wait_up_to};

/// Two signals in less than half a second are one to the gateway.
const SIGNALS_APART: Duration = Duration::from_millis(600);

/// The repository's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// The binary under test.
fn binary() -> PathBuf {
    std::env::var_os("WITGATE").map_or_else(|| repository().join("target/release/witgate"), PathBuf::from)
}

/// What a gateway is started with: a folder, a configuration, filters.
pub struct Setup {
    folder: tempfile::TempDir,
    yaml: String,
    workers: usize,
    shared_state: bool,
    level: String,
    address: String,
    variables: Vec<(String, PathBuf)>,
    listener: String,
}

/// A running gateway. Dropped, it is ended, and its log is printed if the test failed.
pub struct Gateway {
    /// The first listener.
    pub address: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    folder: Arc<tempfile::TempDir>,
}

impl Setup {
    /// A configuration without listeners, admin, state, log and workers: those are the harness's.
    pub fn new(yaml: &str) -> Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
            yaml: yaml.to_owned(),
            workers: 2,
            shared_state: false,
            level: "info,witgate=debug".into(),
            address: "127.0.0.1:0".into(),
            variables: vec![],
            listener: String::new(),
        })
    }

    /// Another number of threads than two.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// This address instead of one that the system chooses.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address.to_string();
        self
    }

    /// More keys of the listener, such as `tls: {…}`.
    #[must_use]
    pub fn listener(mut self, keys: &str) -> Self {
        self.listener = format!(", {keys}");
        self
    }

    /// Another log level than `debug`.
    #[must_use]
    pub fn level(mut self, level: &str) -> Self {
        self.level = level.to_owned();
        self
    }

    /// An environment variable that is a path.
    #[must_use]
    pub fn variable(mut self, name: &str, path: &Path) -> Self {
        self.variables.push((name.into(), path.to_owned()));
        self
    }

    /// Puts a file into the folder.
    pub fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Result<Self> {
        fs::write(self.folder.path().join(name), bytes)?;
        Ok(self)
    }

    /// Puts a filter built by componentize into the folder: `typescript/api-key`, or a fixture such as `tests/python/probe`. What is compiled
    /// from it is shared by all tests, since a language's engine takes seconds.
    pub fn with_guest(mut self, name: &str, guest: &str) -> Result<Self> {
        let dist = guest
            .strip_prefix("tests/")
            .map_or_else(|| format!("guests/dist/{guest}"), |rest| format!("tests/fixtures/dist/{rest}"));
        let path = repository().join(format!("{dist}.wasm"));
        let bytes = fs::read(&path)
            .with_context(|| format!("{}: run `just build-guests build-fixtures` first", path.display()))?;
        self.shared_state = true;
        self.with(name, bytes)
    }

    /// The whole configuration.
    pub fn text(&self, yaml: &str) -> String {
        let state =
            if self.shared_state { repository().join("target/e2e-state") } else { self.folder.path().join("state") };
        format!(
            "listeners: [{{address: \"{}\"{}}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: {}\nlog: {{format: json, level: \"{}\"}}\nstate: {{directory: {}}}\n{yaml}",
            self.address,
            self.listener,
            self.workers,
            self.level,
            state.display()
        )
    }

    /// Writes the configuration without starting; gives its path.
    pub fn write(&self) -> Result<PathBuf> {
        let path = self.folder.path().join("gateway.yaml");
        fs::write(&path, self.text(&self.yaml))?;
        Ok(path)
    }

    /// Runs `witgate check`; gives its exit code and what it said.
    pub fn check(&self) -> Result<(Option<i32>, String)> {
        let output = Command::new(binary()).arg("check").arg("--config").arg(self.write()?).output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code(), said))
    }

    /// Starts the gateway and waits until it is ready.
    pub fn start(self) -> Result<Gateway> {
        let path = self.write()?;
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(path).envs(self.variables);
        Gateway::run(&mut command, Arc::new(self.folder))
    }
}

impl Gateway {
    /// Starts a process and waits until it says that it is ready.
    fn run(command: &mut Command, folder: Arc<tempfile::TempDir>) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: run `just build` first", binary().display()))?;
        let log = Arc::new(Mutex::new(vec![]));
        let stderr = child.stderr.take().context("no standard error")?;
        let lines = log.clone();
        let reading = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let (mut address, mut admin) = (None, None);
        loop {
            let Some(line) = stdout.next().transpose()? else {
                let _ = child.wait();
                let _ = reading.join();
                bail!("the gateway did not start:\n{}", log.lock().unwrap_or_else(PoisonError::into_inner).join("\n"));
            };
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["listening", "admin", url] => {
                    admin = url.strip_prefix("http://").and_then(|address| address.parse().ok())
                }
                ["listening", _, url] => {
                    address = url.split_once("://").and_then(|(_, address)| address.parse().ok());
                }
                ["ready"] => break,
                _ => {}
            }
        }
        let (address, admin) = (address.context("no listener")?, admin.context("no admin listener")?);
        Ok(Self { address, admin, child, log, folder })
    }

    /// Starts another process on the same folder that takes over from this one.
    pub fn succeed(&self) -> Result<Self> {
        let mut command = Command::new(binary());
        command.args(["run", "--takeover", "--config"]).arg(self.path("gateway.yaml"));
        Self::run(&mut command, self.folder.clone())
    }

    /// A new connection.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    /// A GET on a connection of its own.
    pub fn get(&self, path: &str, headers: &[&str]) -> Result<Response> {
        self.client()?.get(path, headers)
    }

    /// A GET on the admin listener.
    pub fn admin(&self, path: &str) -> Result<Response> {
        Client::connect(self.admin)?.get(path, &[])
    }

    /// The value of one metric's line, such as `witgate_in_flight`; 0 where it is not there.
    pub fn metric(&self, line: &str) -> Result<f64> {
        let text = self.admin("/metrics")?.text();
        let found = text.lines().find_map(|own| own.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        Ok(found.unwrap_or(0.0))
    }

    /// Log lines that contain a text.
    pub fn logged(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Waits until `count` log lines contain a text; gives them. The log comes through a pipe: an answer may be here before its line.
    #[track_caller]
    pub fn wait_logged(&self, text: &str, count: usize) -> Vec<String> {
        wait_until(&format!("{count} log lines with {text:?}"), || self.logged(text).len() >= count);
        self.logged(text)
    }

    /// Puts a file in place as builders do: written beside, then renamed.
    pub fn replace(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let beside = self.folder.path().join(format!(".{name}.new"));
        fs::write(&beside, bytes)?;
        Ok(fs::rename(beside, self.folder.path().join(name))?)
    }

    /// A file of the gateway's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id())?).context("no process")?;
        Ok(kill_process(id, signal)?)
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the process's end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_up_to(limit, "the gateway's end", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status.context("no status")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // One that counts what it does writes that when it ends by itself (deploy/dist).
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() {
            for _ in 0..2 {
                // Once it was waited for, its id may be another's.
                if matches!(self.child.try_wait(), Ok(None)) {
                    let _ = self.signal(Signal::TERM);
                    std::thread::sleep(SIGNALS_APART);
                }
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- the gateway's log\n{}\n---",
                self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
            );
        }
    }
}
