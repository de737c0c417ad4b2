//! HTTP/2 frames by hand: what no well-behaved library would send, and what came back.
//!
//! Header blocks are literals without indexing and without Huffman, so any byte can be a name or a value. The dynamic table is set to zero, so that the
//! status of an answer can be read without the state of a decoder.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Types of frames (RFC 9113, section 6).
#[allow(missing_docs)]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames. ACK and END_STREAM have the same bit.
#[allow(missing_docs)]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
}

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No dynamic table for what is sent to us.
pub const NO_TABLE: (u16, u32) = (1, 0);
/// The largest frame that every receiver takes.
const FRAME_MAX: usize = 16384;

/// One frame that came.
#[derive(Debug, Clone)]
pub struct Frame {
    /// One of `kind`, or another.
    pub kind: u8,
    /// Of `flag`.
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
    /// Up to 16 MiB.
    pub payload: Vec<u8>,
}

/// How a stream, or its connection, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A whole response.
    Status(u16),
    /// RST_STREAM with this code, before a whole response.
    Reset(u32),
    /// GOAWAY with an error code.
    GoAway(u32),
    /// Closed without a word.
    Closed,
    /// Nothing of all that in time.
    Open,
}

impl End {
    /// Whether the request was refused: a 4xx, 501, RST_STREAM or the connection's end.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Status(status) => (400..500).contains(&status) || status == 501,
            Self::Open => false,
            _ => true,
        }
    }
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// SETTINGS with these identifiers and values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat()).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A header block of literals; each character is one byte, so that `\u{ff}` is the byte ff.
pub fn block<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut bytes = vec![];
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            let text: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
            length(&mut bytes, text.len());
            bytes.extend_from_slice(&text);
        }
    }
    bytes
}

/// A length with seven bits of prefix (RFC 7541, section 5.1).
fn length(bytes: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        bytes.push(value as u8);
        return;
    }
    bytes.push(127);
    value -= 127;
    while value >= 128 {
        bytes.push((value % 128) as u8 | 128);
        value /= 128;
    }
    bytes.push(value as u8);
}

/// A header block as HEADERS and as many CONTINUATION as it takes.
pub fn headers(stream: u32, block: &[u8], end_stream: bool) -> Vec<u8> {
    let mut parts = block.chunks(FRAME_MAX).peekable();
    let first = parts.next().unwrap_or_default();
    let ends = |last: bool| if last { flag::END_HEADERS } else { 0 };
    let mut bytes = frame(
        kind::HEADERS,
        ends(parts.peek().is_none()) | if end_stream { flag::END_STREAM } else { 0 },
        stream,
        first,
    );
    while let Some(part) = parts.next() {
        bytes.extend(frame(kind::CONTINUATION, ends(parts.peek().is_none()), stream, part));
    }
    bytes
}

/// The four pseudo-header fields of a GET.
pub fn get(path: &str) -> Vec<u8> {
    block([(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)])
}

/// A connection that sends what it is told.
pub struct Frames {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Frames {
    /// Connects, sends the preface and SETTINGS without a dynamic table.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Self::with(address, &[NO_TABLE])
    }

    /// The same with these settings.
    pub fn with(address: SocketAddr, values: &[(u16, u32)]) -> Result<Self> {
        let mut frames = Self::bare(address)?;
        frames.send(&[PREFACE, &settings(values)].concat())?;
        Ok(frames)
    }

    /// Connects and sends nothing.
    pub fn bare(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![] })
    }

    /// Sends bytes; waits for at most five seconds until they are taken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(self.stream.write_all(bytes)?)
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// The next frame; none where the other side closed or nothing came until `deadline` (then `is_open`).
    pub fn read(&mut self, deadline: Instant) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered() {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no frame in time");
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut block = [0; 16384];
            match self.stream.read(&mut block) {
                Ok(0) => return Ok(None),
                Ok(read) => self.buffer.extend_from_slice(&block[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(None);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads, and acknowledges SETTINGS, until this stream or the connection ends.
    pub fn end(&mut self, stream: u32, limit: Duration) -> Result<End> {
        let deadline = Instant::now() + limit;
        let mut status = None;
        while Instant::now() < deadline {
            let frame = match self.read(deadline) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(status.filter(|status| *status >= 400).map_or(End::Closed, End::Status)),
                Err(_) => break,
            };
            match frame.kind {
                kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                    let _ = self.send(&self::frame(kind::SETTINGS, flag::ACK, 0, b""));
                }
                kind::GOAWAY => {
                    let code = code(&frame.payload[4.min(frame.payload.len())..]);
                    if code != 0 {
                        return Ok(End::GoAway(code));
                    }
                }
                kind::RST_STREAM if frame.stream == stream => {
                    // A refusal need not wait for the request's end: what follows it says no more.
                    let code = code(&frame.payload);
                    let whole = status.filter(|status| *status >= 400 || code == 0);
                    return Ok(whole.map_or(End::Reset(code), End::Status));
                }
                kind::HEADERS if frame.stream == stream && status.is_none() => {
                    status = status_of(&frame.payload).filter(|status| *status >= 200);
                }
                _ => {}
            }
            let carries = matches!(frame.kind, kind::HEADERS | kind::DATA) && frame.stream == stream;
            if let Some(status) = status.filter(|_| carries && frame.flags & flag::END_STREAM != 0) {
                return Ok(End::Status(status));
            }
        }
        Ok(status.map_or(End::Open, End::Status))
    }

    fn buffered(&mut self) -> Option<Frame> {
        let head = self.buffer.get(..9)?;
        let size = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags, stream) = (head[3], head[4], code(&head[5..]) & 0x7fff_ffff);
        let payload = self.buffer.get(9..9 + size)?.to_vec();
        self.buffer.drain(..9 + size);
        Some(Frame { kind, flags, stream, payload })
    }
}

/// Four bytes as a number; 0 where they are not there.
fn code(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// The status of a response's header block: its first field, since pseudo-header fields come first.
pub fn status_of(block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let skip = block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
    let block = &block[skip..];
    let first = *block.first()?;
    if (0x88..=0x8e).contains(&first) {
        return INDEXED.get(usize::from(first - 0x88)).copied();
    }
    // A literal whose name is one of the seven indexes of `:status`, in any of the three representations.
    let index = if first & 0x40 != 0 { first & 0x3f } else { first & 0x0f };
    let length = usize::from(block.get(1)? & 0x7f);
    let text = block.get(2..2 + length).filter(|_| (8..=14).contains(&index))?;
    if block.get(1)? & 0x80 == 0 { std::str::from_utf8(text).ok()?.parse().ok() } else { digits(text) }
}

/// Three digits in HPACK's Huffman code: 0 to 2 have five bits, 3 to 9 six.
fn digits(bytes: &[u8]) -> Option<u16> {
    let bits: Vec<u16> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1))).collect();
    let take =
        |at: usize, count: usize| bits.get(at..at + count).map(|bits| bits.iter().fold(0, |n, bit| n << 1 | bit));
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = take(at, 5)?;
        let digit = if five <= 2 { five } else { take(at, 6)?.checked_sub(0x19)? + 3 };
        at += if five <= 2 { 5 } else { 6 };
        number = number * 10 + digit;
    }
    Some(number)
}
