//! Standard output and error of a component: lines in the gateway's log, within the bounds that
//! filters have.
//!
//! This module does not know: where the log goes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::log_limit::LogLimit;
use witgate_http::text::bounded;

/// Lines of one request; further lines are dropped.
const LINES_MAX: u32 = 64;
/// Bytes of a line. A longer one is cut into several.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Bytes that a component may write in one call.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// The output of one instance. Clones share the line that is not complete.
#[derive(Clone)]
pub(super) struct Output(Arc<Mutex<Lines>>);

struct Lines {
    upstream: Arc<str>,
    limit: Arc<LogLimit>,
    rest: Vec<u8>,
    lines: u32,
}

impl Output {
    pub(super) fn new(upstream: &Arc<str>, limit: &Arc<LogLimit>) -> Self {
        let (upstream, limit) = (upstream.clone(), limit.clone());
        Self(Arc::new(Mutex::new(Lines { upstream, limit, rest: vec![], lines: 0 })))
    }
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in part.chunks(LINE_BYTES_MAX) {
                self.rest.extend_from_slice(piece);
                if piece.ends_with(b"\n") || self.rest.len() >= LINE_BYTES_MAX {
                    self.end_line();
                }
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.rest);
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES_MAX {
            return;
        }
        let message = bounded(String::from_utf8_lossy(&line).trim_end());
        if !message.is_empty() && self.limit.allow_bytes(message.len()) {
            let upstream = &*self.upstream;
            tracing::info!(target: "component", upstream, "{message}");
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            self.end_line();
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    /// Only for WASI 0.3, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES_MAX {
            // The contract of `check-write`. The lines of a large write would hold up the thread.
            return Err(StreamError::trap("it writes more to its output than check-write allows"));
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}
