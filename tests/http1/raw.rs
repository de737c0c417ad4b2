//! Raw ends of connections: an upstream whose every byte a script decides, and a client that reads what came and how it ended.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use harness::strict_http1::{self, Message, Parsed};

/// An upstream that runs a script for each connection.
pub(crate) struct ScriptedUpstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl ScriptedUpstream {
    /// Starts to listen; the script gets each connection, whose number begins at 1.
    pub(crate) fn start(script: impl Fn(&mut RawConnection) -> Result<()> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, script) = (connections.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let script = script.clone();
                // A script that fails has lost its peer: the connection ends with it.
                std::thread::spawn(move || RawConnection::new(stream, number).map(|mut connection| script(&mut connection)));
            }
        });
        Ok(Self { address, connections })
    }

    /// One that refuses connections.
    pub(crate) fn nobody() -> Result<Self> {
        Ok(Self { address: harness::refusing_address()?, connections: Arc::default() })
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// One end of a connection.
pub(crate) struct RawConnection {
    pub(crate) stream: TcpStream,
    /// Received and not yet taken.
    pub(crate) bytes: Vec<u8>,
    pub(crate) number: usize,
    pub(crate) closed: bool,
}

impl RawConnection {
    /// A client's connection.
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

    /// One byte at a time.
    pub(crate) fn drip(&mut self, bytes: &[u8], pause: Duration) -> Result<()> {
        for byte in bytes {
            self.send([*byte])?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Lets the connection end with a reset instead of an orderly close: what a script does last.
    pub(crate) fn reset(&mut self) -> Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }

    /// Reads until the other side ends it; gives how long that took, or an error after `limit`.
    pub(crate) fn wait_closed(&mut self, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        while !self.closed {
            ensure!(begin.elapsed() < limit, "not closed within {limit:?}");
            self.receive(Duration::from_millis(100))?;
        }
        Ok(begin.elapsed())
    }

    /// Waits for more bytes, at most `limit`.
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

    /// A whole request, as strict as can be.
    pub(crate) fn request(&mut self) -> Result<Message> {
        self.next(Duration::from_secs(10), |bytes, _| strict_http1::request(bytes))
    }

    /// The head of a request whose body may still come.
    pub(crate) fn head(&mut self) -> Result<Message> {
        self.next(Duration::from_secs(10), |bytes, _| match strict_http1::request(bytes) {
            Parsed::Partial(Some(head)) => Parsed::Complete(head, 0),
            other => other,
        })
    }

    /// The next message from the gateway to a client, interim ones too.
    pub(crate) fn response(&mut self, method: &str) -> Result<Message> {
        self.next(Duration::from_secs(10), |bytes, ended| strict_http1::response(bytes, method, ended))
    }

    fn next(&mut self, limit: Duration, read: impl Fn(&[u8], bool) -> Parsed) -> Result<Message> {
        let until = Instant::now() + limit;
        loop {
            let parsed = if self.bytes.is_empty() { Parsed::Partial(None) } else { read(&self.bytes, self.closed) };
            match parsed {
                Parsed::Complete(message, length) => {
                    self.bytes.drain(..length);
                    return Ok(message);
                }
                Parsed::Invalid(why) => anyhow::bail!("{why}: {}", self.bytes.escape_ascii()),
                Parsed::Partial(_) => {
                    ensure!(!self.closed, "closed within a message: {}", self.bytes.escape_ascii());
                    ensure!(Instant::now() < until, "nothing whole within {limit:?}: {}", self.bytes.escape_ascii());
                    self.receive(Duration::from_millis(100)).context("reading")?;
                }
            }
        }
    }
}
