//! An upstream that keeps the exact bytes it receives, reads them with the strict parser, and says in its answer what it read.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::strict::{self, Message, Parsed};

/// What came over the upstream's connections.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// A whole request; the strict parser found nothing wrong.
    Clean(Message),
    /// A request that was broken off: as far as it came, nothing was wrong.
    Cut(Vec<u8>),
    /// Bytes that are not exactly one reading of HTTP/1.1, and why.
    Dirty(String, Vec<u8>),
}

/// The recording upstream.
pub(crate) struct Recorder {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// Connections in the middle of a request.
    open: usize,
}

impl Recorder {
    /// Starts to listen.
    pub(crate) fn start() -> Result<Self> {
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

    /// What was seen since the last call, once no request is half here any more.
    pub(crate) fn take(&self) -> Vec<Seen> {
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

/// One connection, until it ends or something dirty comes.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let (mut bytes, mut block, mut continued) = (vec![], vec![0; 64 << 10], false);
    loop {
        let read = stream.read(&mut block).unwrap_or(0);
        if read == 0 {
            if !bytes.is_empty() {
                let mut state = lock(state);
                state.open -= 1;
                state.seen.push(Seen::Cut(bytes));
            }
            return;
        }
        if bytes.is_empty() {
            lock(state).open += 1;
        }
        bytes.extend_from_slice(&block[..read]);
        while !bytes.is_empty() {
            match strict::request(&bytes) {
                Parsed::Whole(message, length) => {
                    bytes.drain(..length);
                    continued = false;
                    let answer = answer(&message);
                    let mut state = lock(state);
                    state.seen.push(Seen::Clean(message));
                    if bytes.is_empty() {
                        state.open -= 1;
                    }
                    drop(state);
                    let _ = stream.write_all(answer.as_bytes());
                }
                Parsed::Part(head) => {
                    let waits = head.is_some_and(|head| head.field("expect").is_some());
                    if waits && !continued {
                        continued = true;
                        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    break;
                }
                Parsed::Bad(why) => {
                    let mut state = lock(state);
                    state.open -= 1;
                    state.seen.push(Seen::Dirty(why, bytes));
                    return;
                }
            }
        }
    }
}

/// Names the request that it answers, so that a test sees which answer a client took for which request.
fn answer(message: &Message) -> String {
    let text = format!("saw {} {}", message.start[0], message.target());
    let body = if message.start[0] == "HEAD" { "" } else { text.as_str() };
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", text.len())
}
