//! A plain HTTP server with files that change, and answers that a download must survive.
//!
//! This module does not know: the gateway, a test's expectations.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// How a path is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A file with an entity tag. A request that names the tag gets 304.
    File(Vec<u8>),
    /// This status without a body.
    Status(u16),
    /// 302 to this location.
    Redirect(String),
    /// A `content-length` of this many bytes, and one byte.
    Announced(u64),
    /// Bytes without an end.
    Endless,
    /// The head, and then a byte every 50 ms.
    Drip,
}

/// A server that listens until the process ends.
pub struct FileServer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Answer>,
    /// The path and the status of each request.
    log: Vec<(String, u16)>,
}

impl FileServer {
    /// Binds a free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, state) = (listener.local_addr()?, Arc::new(Mutex::new(State::default())));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Ok(Self { address, state })
    }

    /// Sets the answer for a path.
    pub fn set(&self, path: &str, answer: Answer) {
        lock(&self.state).answers.insert(path.to_owned(), answer);
    }

    /// Sets a file.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.set(path, Answer::File(bytes.into()));
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests for a path got a status.
    pub fn answered(&self, path: &str, status: u16) -> usize {
        lock(&self.state).log.iter().filter(|(asked, got)| asked == path && *got == status).count()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some((path, tag)) = read_request(&mut input) {
        let answer = lock(state).answers.get(&path).cloned().unwrap_or(Answer::Status(404));
        let (status, head, body) = match &answer {
            Answer::File(bytes) => {
                let own = format!("\"{}-{:x}\"", bytes.len(), checksum(bytes));
                if tag.as_ref() == Some(&own) {
                    (304, format!("etag: {own}\r\n"), vec![])
                } else {
                    (200, format!("etag: {own}\r\ncontent-length: {}\r\n", bytes.len()), bytes.clone())
                }
            }
            Answer::Status(status) => (*status, "content-length: 0\r\n".into(), vec![]),
            Answer::Redirect(location) => (302, format!("location: {location}\r\ncontent-length: 0\r\n"), vec![]),
            Answer::Announced(length) => (200, format!("content-length: {length}\r\n"), b"x".to_vec()),
            Answer::Endless | Answer::Drip => (200, "connection: close\r\n".into(), vec![]),
        };
        lock(state).log.push((path, status));
        let sent = out.write_all(format!("HTTP/1.1 {status} X\r\n{head}\r\n").as_bytes());
        if sent.and_then(|()| out.write_all(&body)).is_err() {
            return;
        }
        match answer {
            Answer::Endless => {
                let block = vec![b'x'; 1 << 20];
                while out.write_all(&block).is_ok() {}
                return;
            }
            Answer::Drip => {
                while out.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
                return;
            }
            _ => {}
        }
    }
}

/// The path and the entity tag of a request.
fn read_request(input: &mut BufReader<TcpStream>) -> Option<(String, Option<String>)> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut tag = None;
    loop {
        line.clear();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("if-none-match") {
            tag = Some(value.trim().to_owned());
        }
    }
    Some((path, tag))
}

/// Distinguishes the files of a test (FNV-1a).
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
