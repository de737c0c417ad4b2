//! An upstream that records the exact bytes of each request and parses them strictly. Each response
//! names the request that it belongs to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::strict_http1::{self, Message, Parsed};

/// What one of the upstream's connections received.
#[derive(Debug, Clone)]
pub enum Received {
    /// A complete and valid request.
    Request(Message),
    /// A request that ended early. The bytes that arrived are valid.
    Truncated(Vec<u8>),
    /// Bytes that parsers could read differently, and the reason.
    Malformed(String, Vec<u8>),
}

/// The upstream. It listens until the process ends.
pub struct RecordingUpstream {
    /// The address that it listens on.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    seen: Vec<Received>,
    /// Connections that have received a part of a request.
    open: usize,
}

impl RecordingUpstream {
    /// Binds a free port and starts a thread that accepts connections.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Ok(Self { address, state })
    }

    /// Returns everything received since the last call. Waits up to 5 s for partial requests to
    /// end.
    pub fn take(&self) -> Vec<Received> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let mut state = lock(&self.state);
            if state.open == 0 || Instant::now() > until {
                return std::mem::take(&mut state.seen);
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection until it ends or sends something malformed.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let (mut bytes, mut block, mut continued) = (vec![], vec![0; 64 << 10], false);
    loop {
        let read = stream.read(&mut block).unwrap_or(0);
        if read == 0 {
            if !bytes.is_empty() {
                let mut state = lock(state);
                state.open -= 1;
                state.seen.push(Received::Truncated(bytes));
            }
            return;
        }
        if bytes.is_empty() {
            lock(state).open += 1;
        }
        bytes.extend_from_slice(&block[..read]);
        while !bytes.is_empty() {
            match strict_http1::request(&bytes) {
                Parsed::Complete(message, length) => {
                    bytes.drain(..length);
                    continued = false;
                    let response = response(&message);
                    let mut state = lock(state);
                    state.seen.push(Received::Request(message));
                    if bytes.is_empty() {
                        state.open -= 1;
                    }
                    drop(state);
                    let _ = stream.write_all(response.as_bytes());
                }
                Parsed::Partial(head) => {
                    let expects_continue = head.is_some_and(|head| head.field("expect").is_some());
                    if expects_continue && !continued {
                        continued = true;
                        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    break;
                }
                Parsed::Invalid(why) => {
                    let mut state = lock(state);
                    state.open -= 1;
                    state.seen.push(Received::Malformed(why, bytes));
                    return;
                }
            }
        }
    }
}

/// A response that names its request, so that a test sees whether a client got the right one.
fn response(message: &Message) -> String {
    let text = format!("saw {} {}", message.start[0], message.target());
    let body = if message.start[0] == "HEAD" { "" } else { text.as_str() };
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", text.len())
}
