//! Starts the real binary with a configuration in a temporary folder, and ends it.
//!
//! This module does not know: any feature of the gateway beyond its start, its log and its metrics.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, Response};
use crate::wait::{wait_until, wait_up_to};

/// The gateway takes two signals within half a second for one.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(600);

/// The repository's root folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A component that tests/fixtures/http/build made.
pub fn http_component(name: &str) -> Result<Vec<u8>> {
    let path = repository().join(format!("tests/fixtures/dist/http/{name}.wasm"));
    fs::read(&path).with_context(|| format!("{}: run `just build-fixtures` first", path.display()))
}

/// The binary under test: the environment variable WITGATE, else the release build.
pub fn binary() -> PathBuf {
    std::env::var_os("WITGATE").map_or_else(|| repository().join("target/release/witgate"), PathBuf::from)
}

/// Runs a command of the binary under test, such as `inspect`. Returns its exit code and its
/// output.
pub fn witgate<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<(Option<i32>, String)> {
    let output = Command::new(binary()).args(arguments).output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), text))
}

/// How to start a gateway: a folder with its configuration and filters.
pub struct Setup {
    folder: tempfile::TempDir,
    yaml: String,
    workers: usize,
    shared_state: bool,
    level: String,
    access: String,
    address: String,
    variables: Vec<(String, PathBuf)>,
    listener: String,
    reads_log: bool,
    admin: String,
}

/// A running gateway. Drop ends the process, and prints its log if the test failed.
pub struct Gateway {
    /// The address of the last listener in the configuration (most tests have one).
    pub address: SocketAddr,
    /// The address of the admin listener.
    pub admin: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    folder: Arc<tempfile::TempDir>,
    variables: Vec<(String, PathBuf)>,
}

impl Setup {
    /// Takes a configuration without the keys `listeners`, `admin`, `state`, `log` and `workers`,
    /// which the harness sets.
    pub fn new(yaml: &str) -> Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
            yaml: yaml.to_owned(),
            workers: 2,
            shared_state: false,
            level: "info,witgate=debug".into(),
            access: "off".into(),
            address: "127.0.0.1:0".into(),
            variables: vec![],
            listener: String::new(),
            reads_log: true,
            admin: "address: \"127.0.0.1:0\"".into(),
        })
    }

    /// Sets the number of worker threads. The default is 2.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Listens at this address. The default is a free port of 127.0.0.1.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address.to_string();
        self
    }

    /// Adds keys to the listener, such as `tls: {…}`.
    #[must_use]
    pub fn listener(mut self, keys: &str) -> Self {
        self.listener = format!(", {keys}");
        self
    }

    /// Sets the keys of `admin`. The default is a free port of 127.0.0.1.
    #[must_use]
    pub fn admin(mut self, keys: &str) -> Self {
        self.admin = keys.to_owned();
        self
    }

    /// Sets the log level. The default is `info,witgate=debug`.
    #[must_use]
    pub fn level(mut self, level: &str) -> Self {
        self.level = level.to_owned();
        self
    }

    /// Writes the access log as JSON to `access.log` in the gateway's folder. `more` are further
    /// keys of `log.access`.
    #[must_use]
    pub fn access_log(mut self, more: &str) -> Self {
        self.access = format!("{{to: {{file: access.log}}, {more}}}");
        self
    }

    /// Sets the whole value of `log.access`.
    #[must_use]
    pub fn access(mut self, value: &str) -> Self {
        self.access = value.to_owned();
        self
    }

    /// Leaves the log in its pipe, which becomes full.
    #[must_use]
    pub fn unread_log(mut self) -> Self {
        self.reads_log = false;
        self
    }

    /// Sets an environment variable to a path.
    #[must_use]
    pub fn variable(mut self, name: &str, path: &Path) -> Self {
        self.variables.push((name.into(), path.to_owned()));
        self
    }

    /// Writes a file into the folder.
    pub fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Result<Self> {
        fs::write(self.folder.path().join(name), bytes)?;
        Ok(self)
    }

    /// Copies a filter built by componentize into the folder: `typescript/api-key`, or a fixture
    /// such as `tests/python/probe`. All tests share one compile cache for these filters, because a
    /// language's engine takes seconds to compile.
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

    /// Copies a component of the world wasi:http/proxy that tests/fixtures/http/build made into the
    /// folder. It shares the compile cache of [`with_guest`](Self::with_guest).
    pub fn with_http_component(mut self, name: &str, component: &str) -> Result<Self> {
        self.shared_state = true;
        let bytes = http_component(component)?;
        self.with(name, bytes)
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The complete configuration: `yaml` and the keys that the harness sets.
    pub fn text(&self, yaml: &str) -> String {
        let state =
            if self.shared_state { repository().join("target/e2e-state") } else { self.folder.path().join("state") };
        format!(
            "listeners: [{{address: \"{}\"{}}}]\nadmin: {{{}}}\nworkers: {}\nlog: {{format: json, level: \"{}\", access: {}}}\nstate: {{directory: {}}}\n{yaml}",
            self.address,
            self.listener,
            self.admin,
            self.workers,
            self.level,
            self.access,
            state.display()
        )
    }

    /// Writes the configuration without starting the gateway. Returns its path.
    pub fn write(&self) -> Result<PathBuf> {
        let path = self.folder.path().join("gateway.yaml");
        fs::write(&path, self.text(&self.yaml))?;
        Ok(path)
    }

    /// Runs `witgate check`. Returns its exit code and its output.
    pub fn check(&self) -> Result<(Option<i32>, String)> {
        let output = Command::new(binary()).arg("check").arg("--config").arg(self.write()?).output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code(), text))
    }

    /// Starts the gateway, which must not become ready. Returns its log.
    pub fn start_refused(self) -> Result<String> {
        match self.start() {
            Ok(_) => bail!("the gateway started"),
            Err(error) => Ok(error.to_string()),
        }
    }

    /// Starts the gateway and waits until it is ready.
    pub fn start(self) -> Result<Gateway> {
        self.start_with(&[])
    }

    /// Starts the gateway with more arguments and waits until it is ready.
    pub fn start_with(self, arguments: &[&str]) -> Result<Gateway> {
        let path = self.write()?;
        let mut command = Command::new(binary());
        command.arg("run").args(arguments).arg("--config").arg(path).envs(self.variables.clone());
        let mut gateway = Gateway::run(&mut command, Arc::new(self.folder), self.reads_log)?;
        gateway.variables = self.variables;
        Ok(gateway)
    }
}

impl Gateway {
    /// Starts a process and waits until it prints `ready`.
    fn run(command: &mut Command, folder: Arc<tempfile::TempDir>, reads_log: bool) -> Result<Self> {
        let mut child = command
            // Some tests read /proc/PID of the gateway, as the same user.
            .env("WITGATE_ALLOW_DEBUGGING", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: run `just build` first", binary().display()))?;
        let log = Arc::new(Mutex::new(vec![]));
        let stderr = reads_log.then(|| child.stderr.take().context("no standard error")).transpose()?;
        let lines = log.clone();
        let reading = std::thread::spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines().map_while(Result::ok)) {
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
            let line: serde_json::Value =
                serde_json::from_str(&line).with_context(|| format!("not a line of JSON: {line}"))?;
            let url = line["url"].as_str().and_then(|url| url.split_once("://"));
            let parsed = url.and_then(|(_, address)| address.parse().ok());
            match (line["message"].as_str(), line["listener"].as_str()) {
                (Some("listening"), Some("admin")) => admin = parsed,
                (Some("listening"), Some("admin-socket")) => {}
                // UNIX sockets have no address.
                (Some("listening"), _) => address = parsed.or(address),
                (Some("ready"), _) => break,
                _ => {}
            }
        }
        let (address, admin) = (address.context("no listener")?, admin.context("no admin listener")?);
        Ok(Self { address, admin, child, log, folder, variables: vec![] })
    }

    /// Starts a second process on the same folder, which takes over from this one.
    pub fn start_successor(&self) -> Result<Self> {
        let mut command = Command::new(binary());
        command.args(["run", "--takeover", "--config"]).arg(self.path("gateway.yaml")).envs(self.variables.clone());
        let mut successor = Self::run(&mut command, self.folder.clone(), true)?;
        successor.variables.clone_from(&self.variables);
        Ok(successor)
    }

    /// Opens a new connection.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    /// Sends a GET on a new connection.
    pub fn get(&self, path: &str, headers: &[&str]) -> Result<Response> {
        self.client()?.get(path, headers)
    }

    /// Sends a GET to the admin listener.
    pub fn admin(&self, path: &str) -> Result<Response> {
        self.admin_client()?.get(path, &[])
    }

    /// Opens a connection to the admin listener, which wants a `host` of this host.
    pub fn admin_client(&self) -> Result<Client> {
        Ok(Client::over(TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin.port()))?, "localhost"))
    }

    /// The value of one metric with its labels, such as `witgate_in_flight`. 0 if it is absent.
    pub fn metric(&self, line: &str) -> Result<f64> {
        let text = self.admin("/metrics")?.text();
        let found = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        Ok(found.unwrap_or(0.0))
    }

    /// The log lines that contain `text`.
    pub fn logged(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Waits until at least `count` log lines contain `text` and returns them. The log comes
    /// through a pipe, so a response may arrive before its log line.
    #[track_caller]
    pub fn wait_logged(&self, text: &str, count: usize) -> Vec<String> {
        wait_until(&format!("{count} log lines contain {text:?}"), || self.logged(text).len() >= count);
        self.logged(text)
    }

    /// The lines of the access log that contain `text`.
    pub fn accessed(&self, text: &str) -> Vec<String> {
        let log = fs::read_to_string(self.path("access.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Waits until at least `count` lines of the access log contain `text` and returns them.
    #[track_caller]
    pub fn wait_accessed(&self, text: &str, count: usize) -> Vec<String> {
        wait_until(&format!("{count} access log lines contain {text:?}"), || self.accessed(text).len() >= count);
        self.accessed(text)
    }

    /// Replaces a file atomically, as build tools do: written under another name, then renamed.
    pub fn replace(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let beside = self.folder.path().join(format!(".{name}.new"));
        fs::write(&beside, bytes)?;
        Ok(fs::rename(beside, self.folder.path().join(name))?)
    }

    /// The path of a file in the gateway's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id())?).context("no process")?;
        Ok(kill_process(id, signal)?)
    }

    /// Ends the process and starts it anew with the same folder.
    pub fn restart(&mut self) -> Result<()> {
        let _ = self.child.kill();
        self.child.wait()?;
        let mut command = Command::new(binary());
        let variables = std::mem::take(&mut self.variables);
        command.args(["run", "--config"]).arg(self.path("gateway.yaml")).envs(variables.clone());
        *self = Self::run(&mut command, self.folder.clone(), true)?;
        self.variables = variables;
        Ok(())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process ends and returns its status.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_up_to(limit, "the gateway ends", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status.context("no status")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // An instrumented build writes its profile only when it exits by itself (deploy/dist).
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() {
            for _ in 0..2 {
                // After the process was reaped, its id may belong to another process.
                if matches!(self.child.try_wait(), Ok(None)) {
                    let _ = self.signal(Signal::TERM);
                    std::thread::sleep(SIGNAL_INTERVAL);
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
