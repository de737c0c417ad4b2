//! A service that filters call: it answers each request with a text that the test sets, and keeps
//! the requests.
//!
//! This module does not know: the gateway, filters.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

/// The service. It serves until the process ends.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answer: String,
    bodies: Vec<String>,
}

impl Service {
    pub(super) fn start(answer: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let state = Arc::new(Mutex::new(State { answer: answer.to_owned(), bodies: vec![] }));
        let (address, served) = (listener.local_addr()?, state.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = served.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Ok(Self { address, state })
    }

    pub(super) fn set_answer(&self, answer: &str) {
        lock(&self.state).answer = answer.to_owned();
    }

    /// The bodies of all requests so far.
    pub(super) fn bodies(&self) -> Vec<String> {
        lock(&self.state).bodies.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut line = String::new();
        while input.read_line(&mut line).ok()? > 0 && line.trim_end() != "" {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            line.clear();
        }
        if line.is_empty() {
            return None;
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body).ok()?;
        let answer = {
            let mut state = lock(state);
            state.bodies.push(String::from_utf8_lossy(&body).into_owned());
            state.answer.clone()
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        out.write_all(format!("{head}{answer}").as_bytes()).ok()?;
    }
}
