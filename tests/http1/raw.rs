//! Raw connections: an upstream that follows a script byte by byte, and a client that shows exactly
//! what it received and how the connection ended.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::strict_http1::{self, Message, Parsed};
use harness::{Gateway, Setup};

/// Limit for reading one message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway whose only route goes to this upstream. `settings` is more YAML at the top level.
pub(crate) fn gateway_to(upstream: &ScriptedUpstream, settings: &str) -> Result<Gateway> {
    let yaml = format!(
        "{settings}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 2s}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    Setup::new(&yaml)?.start()
}

/// An upstream that runs a script for each connection.
pub(crate) struct ScriptedUpstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl ScriptedUpstream {
    /// Listens, and calls `script` on a new thread for each connection. Connections are numbered
    /// from 1.
    pub(crate) fn start(script: impl Fn(&mut RawConnection) -> Result<()> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, script) = (connections.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let script = script.clone();
                // A script fails when the gateway closes the connection, so the error is ignored.
                std::thread::spawn(move || {
                    RawConnection::new(stream, number).map(|mut connection| script(&mut connection))
                });
            }
        });
        Ok(Self { address, connections })
    }

    /// An upstream that refuses connections.
    pub(crate) fn refusing() -> Result<Self> {
        Ok(Self { address: harness::refusing_address()?, connections: Arc::default() })
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// One end of a TCP connection.
pub(crate) struct RawConnection {
    pub(crate) stream: TcpStream,
    /// Received bytes that no message has consumed.
    pub(crate) bytes: Vec<u8>,
    /// The upstream's number for this connection; 0 for a client's connection.
    pub(crate) number: usize,
    /// Whether the other side has closed or reset the connection.
    pub(crate) closed: bool,
}

impl RawConnection {
    /// Connects as a client.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        Self::new(TcpStream::connect(address)?, 0)
    }

    fn new(stream: TcpStream, number: usize) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: vec![], number, closed: false })
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.stream.write_all(bytes.as_ref())?)
    }

    /// Sends one byte at a time, with a pause after each.
    pub(crate) fn send_bytewise(&mut self, bytes: &[u8], pause: Duration) -> Result<()> {
        for byte in bytes {
            self.send([*byte])?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Makes the connection end with a TCP reset when it is dropped.
    pub(crate) fn reset(&mut self) -> Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }

    /// Reads until the other side closes, and returns how long that took. Fails after `limit`.
    pub(crate) fn wait_closed(&mut self, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        while !self.closed {
            ensure!(begin.elapsed() < limit, "the connection was not closed within {limit:?}");
            self.receive(Duration::from_millis(100))?;
        }
        Ok(begin.elapsed())
    }

    /// Waits at most `limit` for more bytes.
    pub(crate) fn receive(&mut self, limit: Duration) -> Result<()> {
        let mut block = vec![0; 64 << 10];
        self.stream.set_read_timeout(Some(limit))?;
        match self.stream.read(&mut block) {
            Ok(0) => self.closed = true,
            Ok(read) => self.bytes.extend_from_slice(&block[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.closed = true,
        }
        Ok(())
    }

    /// Reads a complete request with the strict parser.
    pub(crate) fn read_request(&mut self) -> Result<Message> {
        self.read(|bytes, _| strict_http1::request(bytes))
    }

    /// Reads the header section of a request, whose body may still be on its way.
    pub(crate) fn read_request_head(&mut self) -> Result<Message> {
        self.read(|bytes, _| match strict_http1::request(bytes) {
            Parsed::Partial(Some(head)) => Parsed::Complete(head, 0),
            other => other,
        })
    }

    /// Reads the next response to `method`, interim responses included.
    pub(crate) fn read_response(&mut self, method: &str) -> Result<Message> {
        self.read(|bytes, ended| strict_http1::response(bytes, method, ended))
    }

    fn read(&mut self, parse: impl Fn(&[u8], bool) -> Parsed) -> Result<Message> {
        let until = Instant::now() + MESSAGE_TIMEOUT;
        loop {
            let parsed = if self.bytes.is_empty() { Parsed::Partial(None) } else { parse(&self.bytes, self.closed) };
            match parsed {
                Parsed::Complete(message, length) => {
                    self.bytes.drain(..length);
                    return Ok(message);
                }
                Parsed::Invalid(why) => anyhow::bail!("invalid message: {why}: {}", self.bytes.escape_ascii()),
                Parsed::Partial(_) => {
                    let received = self.bytes.escape_ascii();
                    ensure!(!self.closed, "the connection was closed inside a message: {received}");
                    ensure!(Instant::now() < until, "no complete message within {MESSAGE_TIMEOUT:?}: {received}");
                    self.receive(Duration::from_millis(100)).context("reading")?;
                }
            }
        }
    }
}
