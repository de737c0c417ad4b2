//! An upstream that does as the request says: status, delay, length, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// What the kernel holds of an answer; connections inherit it. Left to itself it is 4 MB, and four hundred downloads that nobody reads bring a machine to the kernel's limit for all sockets, where
/// everybody's connections stand still.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// A server on a thread for each connection. The path says what it does: `/status/503`, `/delay/100` (milliseconds), `/bytes/1000`, `/chunked`, `/cut`
/// (ends in the middle of the body), `/reset` (ends before the head), `/halt` (stops in the middle of the body), `/drip/10` (a byte each 20 ms), `/length` (the body's length as it arrived), `/nominated`, `/who` (its address); unless a
/// mood is set, which says so for all. Dropped, it goes on; killed, it is as if its process had been.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    own: Arc<Own>,
}

/// What all requests meet, whatever their path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// The path says what it does.
    Obey,
    /// This status.
    Status(u16),
    /// The connection ends before the head.
    Reset,
    /// Nothing comes.
    Stall,
}

struct Own {
    address: SocketAddr,
    connections: AtomicUsize,
    requests: AtomicUsize,
    mood: Mutex<Mood>,
    /// The listener and the open connections; none once killed.
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
        // Connections that come faster than threads start wait here: with the 128 of the standard library, some would be tried again only after 1 s, 3 s…
        rustix::net::listen(&listener, BACKLOG)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
        let address = listener.local_addr()?;
        let own = Arc::new(Own {
            address,
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            mood: Mutex::new(Mood::Obey),
            open: Mutex::new(Some((listener.try_clone()?, vec![]))),
        });
        let serving = own.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(copy) = stream.try_clone() else { continue };
                match lock(&serving.open).as_mut() {
                    Some((_, open)) => open.push(copy),
                    None => return,
                }
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let own = serving.clone();
                std::thread::spawn(move || serve(stream, &own));
            }
        });
        Ok(Self { address, own })
    }

    /// Ends every connection and listens no more.
    pub fn kill(self) {
        let Some((listener, open)) = lock(&self.own.open).take() else { return };
        // A socket is a socket: shutting it down ends the listening, also for the thread that accepts.
        let _ = TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
        for stream in open {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What all requests meet from now on.
    pub fn set_mood(&self, mood: Mood) {
        *lock(&self.own.mood) = mood;
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.own.connections.load(Ordering::Relaxed)
    }

    /// Requests so far, those to `/healthz` not counted.
    pub fn requests(&self) -> usize {
        self.own.requests.load(Ordering::Relaxed)
    }

    /// As an entry of `upstreams:`.
    pub fn yaml(&self) -> String {
        format!("{{endpoints: [\"http://{}\"], timeout: 2s}}", self.address)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, own: &Own) {
    let Ok(mut out) = stream.try_clone() else { return };
    // Head and body are written apart: the second must not wait for the first to be acknowledged.
    let _ = out.set_nodelay(true);
    let mut input = BufReader::new(stream);
    while let Some((path, length)) = read_request(&mut input) {
        if path != "/healthz" {
            own.requests.fetch_add(1, Ordering::Relaxed);
        }
        let mood = *lock(&own.mood);
        let answered = match mood {
            Mood::Obey if path == "/who" => {
                let who = own.address.to_string();
                out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{who}", who.len()).as_bytes())
            }
            Mood::Obey => answer(&mut out, &path, length),
            Mood::Status(status) => answer(&mut out, &format!("/status/{status}"), length),
            // Until the other side, or the test, has enough.
            Mood::Stall => input.read(&mut [0]).map(|_| ()),
            Mood::Reset => Ok(()),
        };
        let ends = path.starts_with("/cut") || path.starts_with("/reset") || matches!(mood, Mood::Stall | Mood::Reset);
        if answered.is_err() || ends {
            let _ = out.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// The path and the length of the body, which is read to its end.
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

fn answer(out: &mut TcpStream, path: &str, length: usize) -> std::io::Result<()> {
    let mut parts = path.trim_start_matches('/').split('/');
    let (what, number) =
        (parts.next().unwrap_or_default(), parts.next().and_then(|n| n.parse().ok()).unwrap_or(0_usize));
    let plain =
        |status: usize, body: &str| format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    match what {
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
            // Until the other side has enough.
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
