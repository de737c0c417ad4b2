//! A plain HTTP/1.1 client over one connection: what it sends is exactly what a test wrote.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

/// One connection, kept alive.
pub struct Client {
    stream: BufReader<Box<dyn Wire>>,
    host: String,
}

/// What a client speaks over.
pub trait Wire: std::io::Read + std::io::Write + Send {
    /// The socket below.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Without chunking.
    pub body: Vec<u8>,
}

impl Response {
    /// The first line of a field.
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
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// A field that the echo received.
    #[track_caller]
    pub fn echoed(&self, name: &str) -> Option<String> {
        let json = self.json();
        let fields = json["headers"].as_array().cloned().unwrap_or_default();
        fields.iter().find(|field| field[0] == name).and_then(|field| field[1].as_str().map(str::to_owned))
    }
}

impl Client {
    /// Connects; every read has a deadline of 20 seconds.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream, "test"))
    }

    /// Over a connection that is there, to this host.
    pub fn over(wire: impl Wire + 'static, host: &str) -> Self {
        Self { stream: BufReader::new(Box::new(wire)), host: host.to_owned() }
    }

    /// This connection's own address: the same as long as it is the same connection.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().tcp().local_addr()?)
    }

    /// Sends raw bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// A GET with header lines such as `x-a: 1`.
    pub fn get(&mut self, path: &str, headers: &[&str]) -> Result<Response> {
        self.send("GET", path, headers, b"")
    }

    /// A request with a body, if it is not empty.
    pub fn send(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Response> {
        self.begin(method, path, headers, body)?;
        self.read(method == "HEAD")
    }

    /// Sends a request without waiting for the answer.
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

    /// Reads one response.
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

    /// Reads a response's head.
    pub fn read_head(&mut self) -> Result<Response> {
        let start = self.line()?;
        let status = start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("no status in {start:?}"))?;
        let mut headers = vec![];
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("no field: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Response { status, headers, body: vec![] })
    }

    /// Reads a chunk of a body as it arrives; none at its end.
    pub fn read_chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let size = usize::from_str_radix(&self.line()?, 16)?;
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk)?;
        self.line()?;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    /// Waits for the first byte of an answer; false where the connection ended before it.
    pub fn answers(&mut self) -> bool {
        self.stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    }

    /// Whether the other side has closed.
    pub fn is_closed(&mut self) -> bool {
        self.stream.fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}
