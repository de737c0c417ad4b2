//! An upstream that does as the request says: status, delay, length, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;

/// A server on a thread for each connection. The path says what it does: `/status/503`, `/delay/100` (milliseconds), `/bytes/1000`, `/chunked`, `/cut`
/// (ends in the middle of the body), `/reset` (ends before the head), `/length` (the body's length as it arrived), `/nominated`.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    /// Starts to listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, received) = (connections.clone(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let received = received.clone();
                std::thread::spawn(move || serve(stream, &received));
            }
        });
        Ok(Self { address, connections, requests })
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whole requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// As an entry of `upstreams:`.
    pub fn yaml(&self) -> String {
        format!("{{endpoints: [\"http://{}\"], timeout: 2s}}", self.address)
    }
}

fn serve(stream: TcpStream, received: &AtomicUsize) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some((path, length)) = read_request(&mut input) {
        received.fetch_add(1, Ordering::Relaxed);
        if answer(&mut out, &path, length).is_err() || path.starts_with("/cut") || path.starts_with("/reset") {
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
        "length" => out.write_all(plain(200, &length.to_string()).as_bytes()),
        "nominated" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nconnection: x-secret\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\ncontent-length: 0\r\n\r\n")
        }
        _ => out.write_all(plain(200, "ok").as_bytes()),
    }
}
