//! An upstream that gives every request the same response, and records the requests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use harness::Gateway;
use harness::strict_http1::Message;

use super::raw::{RawConnection, ScriptedUpstream, gateway_to};

/// A 200 with the body `ok`.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The upstream.
pub(crate) struct FixedResponse {
    upstream: ScriptedUpstream,
    requests: Arc<Mutex<Vec<Message>>>,
}

impl FixedResponse {
    /// Starts an upstream that sends `response`. If that has no length, it then closes the
    /// connection.
    pub(crate) fn start(response: &'static str) -> Result<Self> {
        let requests: Arc<Mutex<Vec<Message>>> = Arc::default();
        let recorded = requests.clone();
        let upstream = ScriptedUpstream::start(move |connection| {
            loop {
                let request = connection.read_request()?;
                recorded.lock().map(|mut requests| requests.push(request)).ok();
                connection.send(response)?;
                if !response.contains("Content-Length") && !response.contains("chunked") {
                    return Ok(());
                }
            }
        })?;
        Ok(Self { upstream, requests })
    }

    /// The address that the upstream listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// A gateway whose only route goes to this upstream. `settings` is more YAML at the top level.
    pub(crate) fn gateway(&self, settings: &str) -> Result<Gateway> {
        gateway_to(&self.upstream, settings)
    }

    /// The last request; an empty message if there was none.
    pub(crate) fn last(&self) -> Message {
        self.requests.lock().ok().and_then(|requests| requests.last().cloned()).unwrap_or_default()
    }

    /// The number of requests so far.
    pub(crate) fn count(&self) -> usize {
        self.requests.lock().map(|requests| requests.len()).unwrap_or(0)
    }
}

/// Sends one request on a new connection and returns the response.
pub(crate) fn exchange(gateway: &Gateway, request_line: &str, field_lines: &[&str]) -> Result<Message> {
    let mut client = RawConnection::connect(gateway.address)?;
    let fields: String = field_lines.iter().map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{request_line}\r\nHost: t.test\r\n{fields}\r\n"))?;
    client.read_response(request_line.split(' ').next().unwrap_or_default())
}
