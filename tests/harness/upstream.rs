//! An upstream whose behaviour the request's path chooses: status, delay, length, faults.
//!
//! | path | response |
//! |---|---|
//! | `/status/503` | this status, no body |
//! | `/delay/100` | `late` after so many milliseconds |
//! | `/bytes/1000` | a body of so many bytes |
//! | `/chunked` | `abcde` in two chunks |
//! | `/cut` | the connection ends in the middle of the body |
//! | `/reset` | the connection ends before the head |
//! | `/halt` | nothing follows the first bytes of the body |
//! | `/drip/10` | so many bytes, one every 20 ms |
//! | `/length` | the length of the request's body as it arrived |
//! | `/nominated` | fields that `connection` names |
//! | `/address` | the upstream's own address |
//! | other paths | `ok` |
//!
//! This module does not know: the gateway, a test's expectations.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// The kernel's send buffer for each connection, inherited from the listener. The kernel's default
/// is 4 MB, and 400 downloads that nobody reads would reach the limit for all sockets (`tcp_mem`),
/// where every connection of the machine stalls.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// A server with a thread for each connection. It serves after a drop, until [`Upstream::kill`],
/// which has the effect of a killed process.
pub struct Upstream {
    /// The address it listens at.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// How the upstream responds to every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behavior {
    /// As the path says.
    FollowPath,
    /// With this status, whatever the path.
    Status(u16),
    /// It closes the connection before the head.
    Reset,
    /// It sends nothing.
    Stall,
}

struct Shared {
    address: SocketAddr,
    connections: AtomicUsize,
    requests: AtomicUsize,
    behavior: Mutex<Behavior>,
    /// The listener and the open connections, or `None` after `kill`.
    open: Mutex<Option<(TcpListener, Vec<TcpStream>)>>,
}

impl Upstream {
    /// Starts to listen.
    pub fn start() -> Result<Self> {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts to listen at this address.
    pub fn at(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        // The standard library's backlog is 128. A burst of connections would overflow it, and the
        // client's kernel would retry only after 1 s, 3 s and so on.
        rustix::net::listen(&listener, BACKLOG)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            address,
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            behavior: Mutex::new(Behavior::FollowPath),
            open: Mutex::new(Some((listener.try_clone()?, vec![]))),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(copy) = stream.try_clone() else { continue };
                match lock(&serving.open).as_mut() {
                    Some((_, open)) => open.push(copy),
                    None => return,
                }
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let shared = serving.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(Self { address, shared })
    }

    /// Ends every connection and stops listening.
    pub fn kill(self) {
        let Some((listener, open)) = lock(&self.shared.open).take() else { return };
        // A shutdown of the listening socket also ends the thread that waits in accept.
        let _ = TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
        for stream in open {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Sets the behaviour for all requests that follow.
    pub fn set_behavior(&self, behavior: Behavior) {
        *lock(&self.shared.behavior) = behavior;
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The number of requests so far, without those to `/healthz`.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// This upstream as an entry of the configuration's `upstreams`.
    pub fn yaml(&self) -> String {
        format!("{{endpoints: [\"http://{}\"], timeout: 2s}}", self.address)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, shared: &Shared) {
    let Ok(mut out) = stream.try_clone() else { return };
    // Head and body are separate writes: without this, the body waits until the head is
    // acknowledged (Nagle's algorithm).
    let _ = out.set_nodelay(true);
    let mut input = BufReader::new(stream);
    while let Some((path, length)) = read_request(&mut input) {
        if path != "/healthz" {
            shared.requests.fetch_add(1, Ordering::Relaxed);
        }
        let behavior = *lock(&shared.behavior);
        let result = match behavior {
            Behavior::FollowPath if path == "/address" => {
                let address = shared.address.to_string();
                out.write_all(
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{address}", address.len()).as_bytes(),
                )
            }
            Behavior::FollowPath => respond(&mut out, &path, length),
            Behavior::Status(status) => respond(&mut out, &format!("/status/{status}"), length),
            // Blocks until the peer closes or `kill` is called.
            Behavior::Stall => input.read(&mut [0]).map(|_| ()),
            Behavior::Reset => Ok(()),
        };
        let ends = path.starts_with("/cut")
            || path.starts_with("/reset")
            || matches!(behavior, Behavior::Stall | Behavior::Reset);
        if result.is_err() || ends {
            let _ = out.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Reads one request with its body. Returns the path and the body's length.
fn read_request(input: &mut BufReader<TcpStream>) -> Option<(String, usize)> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut chunked) = (0_usize, false);
    loop {
        line.clear();
        input.read_line(&mut line).ok()?;
        let field = line.trim_end().to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        chunked |= field.starts_with("transfer-encoding:");
    }
    if !chunked {
        std::io::copy(&mut input.by_ref().take(length as u64), &mut std::io::sink()).ok()?;
        return Some((path, length));
    }
    let mut total = 0;
    loop {
        line.clear();
        input.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
        std::io::copy(&mut input.by_ref().take(size as u64 + 2), &mut std::io::sink()).ok()?;
        total += size;
        if size == 0 {
            return Some((path, total));
        }
    }
}

fn respond(out: &mut TcpStream, path: &str, length: usize) -> std::io::Result<()> {
    let mut parts = path.trim_start_matches('/').split('/');
    let (kind, number) =
        (parts.next().unwrap_or_default(), parts.next().and_then(|n| n.parse().ok()).unwrap_or(0_usize));
    let plain =
        |status: usize, body: &str| format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    match kind {
        "status" => out.write_all(plain(number, "").as_bytes()),
        "delay" => {
            std::thread::sleep(Duration::from_millis(number as u64));
            out.write_all(plain(200, "late").as_bytes())
        }
        "bytes" => {
            out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {number}\r\n\r\n").as_bytes())?;
            let block = vec![b'x'; number.min(64 << 10)];
            (0..number).step_by(block.len().max(1)).try_for_each(|at| out.write_all(&block[..block.len().min(number - at)]))
        }
        "chunked" => out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        "cut" => out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"),
        "reset" => Ok(()),
        "halt" => {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")?;
            // Blocks until the peer closes.
            out.read(&mut [0]).map(|_| ())
        }
        "drip" => {
            out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {number}\r\n\r\n").as_bytes())?;
            (0..number).try_for_each(|_| {
                std::thread::sleep(Duration::from_millis(20));
                out.write_all(b"x")
            })
        }
        "length" => out.write_all(plain(200, &length.to_string()).as_bytes()),
        "nominated" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nconnection: x-secret\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\ncontent-length: 0\r\n\r\n")
        }
        _ => out.write_all(plain(200, "ok").as_bytes()),
    }
}
