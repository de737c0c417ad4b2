//! A plain HTTP/1.1 client over one connection. It sends exactly the bytes that a test wrote.
//!
//! This module does not know: the gateway, how a test judges a response.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketType};
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

/// A client with one keep-alive connection.
pub struct Client {
    stream: BufReader<Box<dyn Transport>>,
    host: String,
}

/// The byte stream below a client: plain TCP or TLS.
pub trait Transport: std::io::Read + std::io::Write + Send {
    /// The TCP socket at the bottom.
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

/// A received response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The fields in the order received, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, with chunked coding removed.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field's first line.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is not JSON ({error}): {}", self.text()))
    }

    /// The value of a request field as the echo upstream received it.
    #[track_caller]
    pub fn echoed(&self, name: &str) -> Option<String> {
        let json = self.json();
        let fields = json["headers"].as_array().cloned().unwrap_or_default();
        fields.iter().find(|field| field[0] == name).and_then(|field| field[1].as_str().map(str::to_owned))
    }
}

impl Client {
    /// Connects over TCP. Every read has a deadline of 20 seconds.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream, "test"))
    }

    /// Connects from this address of the loopback network, such as 127.0.0.2.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Result<Self> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
        rustix::net::connect(&socket, &address)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream, "test"))
    }

    /// Uses an established connection. `host` becomes the `host` field of every request.
    pub fn over(transport: impl Transport + 'static, host: &str) -> Self {
        Self { stream: BufReader::new(Box::new(transport)), host: host.to_owned() }
    }

    /// This connection's local address, which identifies the connection.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().tcp().local_addr()?)
    }

    /// Sends raw bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// Sends a GET with header lines such as `x-a: 1` and reads the response.
    pub fn get(&mut self, path: &str, headers: &[&str]) -> Result<Response> {
        self.send("GET", path, headers, b"")
    }

    /// Sends a request and reads the response. An empty `body` sends no `content-length`.
    pub fn send(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Response> {
        self.begin(method, path, headers, body)?;
        self.read(method == "HEAD")
    }

    /// Sends a request without reading the response.
    pub fn begin(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.write(&bytes)
    }

    /// Reads one response. `is_head`: the request's method was HEAD.
    pub fn read(&mut self, is_head: bool) -> Result<Response> {
        let mut response = self.read_head()?;
        let status = response.status;
        if is_head || status == 204 || status == 304 || status < 200 {
            return Ok(response);
        }
        if response.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.read_chunk()? {
                response.body.extend(chunk);
            }
        } else if let Some(length) = response.header("content-length") {
            response.body = vec![0; length.parse()?];
            self.stream.read_exact(&mut response.body)?;
        } else {
            self.stream.read_to_end(&mut response.body)?;
        }
        Ok(response)
    }

    /// Reads the head of a response.
    pub fn read_head(&mut self) -> Result<Response> {
        let start = self.line()?;
        let status = start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("the status line has no status: {start:?}"))?;
        let mut headers = vec![];
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').with_context(|| format!("a header line has no colon: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Response { status, headers, body: vec![] })
    }

    /// Reads one chunk of a chunked body, or `None` for the last chunk.
    pub fn read_chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let size = usize::from_str_radix(&self.line()?, 16)?;
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk)?;
        self.line()?;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    /// Waits for the first byte of a response. False if the connection ended before it.
    pub fn response_starts(&mut self) -> bool {
        self.stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    }

    /// Waits for the peer's next byte or close. True if the peer closed.
    pub fn is_closed(&mut self) -> bool {
        self.stream.fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the peer closed the connection in the middle of a response");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}
