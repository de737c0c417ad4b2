//! A real Redis server for one test, and servers that behave badly in its place.
//!
//! This module does not know: the gateway, a test's expectations.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A redis-server process without persistence. Drop ends it.
pub struct Redis {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a server on a free port and waits until it accepts connections.
    pub fn start() -> Result<Self> {
        Self::start_with(|port| vec!["--port".into(), port.to_string()])
    }

    /// Starts a server with these arguments beside address, folder and persistence.
    pub fn start_with(arguments: impl Fn(u16) -> Vec<String>) -> Result<Self> {
        for _ in 0..5 {
            // Another process may take the port before the server does.
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let folder = tempfile::tempdir()?;
            let arguments = arguments(address.port());
            let mut child = spawn(&arguments, &folder)?;
            if wait_until_listening(&mut child, address)? {
                return Ok(Self { address, child, folder, arguments });
            }
        }
        bail!("redis-server did not start on a free port")
    }

    /// The URL for gateway.yaml.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Sends a command and returns the first line of the reply.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(command.as_bytes())?;
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Suspends the process: connections open, and nothing is answered.
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes the process.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Ends the process. Its data is lost.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again at the same address.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.arguments, &self.folder)?;
        if wait_until_listening(&mut self.child, self.address)? {
            return Ok(());
        }
        bail!("redis-server did not start again at {}", self.address)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id())?).context("no process")?;
        Ok(kill_process(id, signal)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[String], folder: &tempfile::TempDir) -> Result<Child> {
    Command::new("redis-server")
        .args(arguments)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("redis-server cannot be started: run `tests/tools/install redis` first")
}

/// False if the process ended.
fn wait_until_listening(child: &mut Child, address: SocketAddr) -> Result<bool> {
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        assert!(Instant::now() < until, "redis-server does not listen at {address}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// A proxy before a server that delays each reply.
pub struct DelayingProxy {
    /// Where it listens.
    pub address: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl DelayingProxy {
    /// Starts without a delay.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, delay_ms) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let delay = delay_ms.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { continue };
                let delay = delay.clone();
                std::thread::spawn(move || copy(from_client, to_server, || Duration::ZERO));
                std::thread::spawn(move || {
                    copy(server, client, || Duration::from_millis(delay.load(Ordering::Relaxed)));
                });
            }
        });
        Ok(Self { address, delay_ms })
    }

    /// Sets the delay of later replies.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, delay: impl Fn() -> Duration) {
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        std::thread::sleep(delay());
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Starts a server that answers PING, and every other command with `lie`. Bytes follow the lie
/// without end if `floods` is set.
pub fn lying_redis(lie: &'static [u8], floods: bool) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut bytes = [0; 64 << 10];
                while let Ok(length @ 1..) = client.read(&mut bytes) {
                    let is_ping = bytes[..length].windows(4).any(|word| word == b"PING");
                    if client.write_all(if is_ping { b"+PONG\r\n" } else { lie }).is_err() {
                        return;
                    }
                    while floods && !is_ping && client.write_all(&[b'x'; 64 << 10]).is_ok() {}
                }
            });
        }
    });
    Ok(address)
}
