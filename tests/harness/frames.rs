//! HTTP/2 frames written by hand, for requests that no well-behaved library would send.
//!
//! Header blocks consist of literals without indexing and without Huffman coding, so any byte can
//! be part of a name or a value. SETTINGS announce a dynamic table of size 0, so the status of a
//! response can be read without a stateful HPACK decoder.
//!
//! This module does not know: the gateway, how a test judges the outcome.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Frame types (RFC 9113, section 6).
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

/// Frame flags. ACK and END_STREAM are the same bit.
#[allow(missing_docs)]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
}

/// The client connection preface (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SETTINGS_HEADER_TABLE_SIZE = 0: the peer must not use a dynamic table.
pub const NO_TABLE: (u16, u32) = (1, 0);
/// The frame payload size that every peer must accept, in bytes (RFC 9113, section 4.2).
const FRAME_MAX: usize = 16384;

/// A received frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The frame type, one of [`kind`] or unknown.
    pub kind: u8,
    /// The flags, see [`flag`].
    pub flags: u8,
    /// The stream id. 0 stands for the connection.
    pub stream: u32,
    /// The payload, with padding if the frame has any.
    pub payload: Vec<u8>,
}

/// How a stream or its connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A complete response.
    Status(u16),
    /// RST_STREAM with this code before a complete response.
    Reset(u32),
    /// GOAWAY with this error code, which is not 0.
    GoAway(u32),
    /// The connection was closed without GOAWAY or RST_STREAM.
    Closed,
    /// None of these happened before the deadline.
    Open,
}

impl End {
    /// Whether the request was refused: 4xx, 501, RST_STREAM, GOAWAY or a closed connection.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Status(status) => (400..500).contains(&status) || status == 501,
            Self::Open => false,
            _ => true,
        }
    }
}

/// Encodes a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Encodes a SETTINGS frame with these identifiers and values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat()).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// Encodes a header block of literals. Each character becomes one byte: `\u{ff}` is the byte FF.
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

/// Encodes a length with a prefix of seven bits (RFC 7541, section 5.1).
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

/// Encodes a header block as one HEADERS frame and as many CONTINUATION frames as it needs.
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

/// The header block of a GET: the four pseudo-header fields.
pub fn get(path: &str) -> Vec<u8> {
    block([(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)])
}

/// A connection that sends arbitrary bytes and reads frames.
pub struct Frames {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Frames {
    /// Connects, then sends the preface and SETTINGS without a dynamic table.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Self::with_settings(address, &[NO_TABLE])
    }

    /// Connects, then sends the preface and these SETTINGS.
    pub fn with_settings(address: SocketAddr, values: &[(u16, u32)]) -> Result<Self> {
        let mut frames = Self::without_preface(address)?;
        frames.send(&[PREFACE, &settings(values)].concat())?;
        Ok(frames)
    }

    /// Connects and sends nothing.
    pub fn without_preface(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![] })
    }

    /// Sends bytes. Fails if the socket does not accept them within 5 seconds.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(self.stream.write_all(bytes)?)
    }

    /// The TCP socket.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads the next frame, or `None` if the peer closed. Fails if no frame came until `deadline`.
    pub fn read(&mut self, deadline: Instant) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered() {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no frame came before the deadline");
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

    /// Reads frames, and acknowledges SETTINGS, until this stream or the connection ends.
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
                    // A peer may refuse before the request's end and then reset the stream: the
                    // refusal is the response, although END_STREAM never came.
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

/// Reads four bytes as a number. 0 if there are fewer.
fn code(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// The status in a response's header block. It is the first field, since pseudo-header fields come
/// first.
pub fn status_of(block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let skip = block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
    let block = &block[skip..];
    let first = *block.first()?;
    if (0x88..=0x8e).contains(&first) {
        return INDEXED.get(usize::from(first - 0x88)).copied();
    }
    // A literal whose name is one of the seven static-table entries of `:status`, in any of the
    // three literal representations.
    let index = if first & 0x40 != 0 { first & 0x3f } else { first & 0x0f };
    let length = usize::from(block.get(1)? & 0x7f);
    let text = block.get(2..2 + length).filter(|_| (8..=14).contains(&index))?;
    if block.get(1)? & 0x80 == 0 { std::str::from_utf8(text).ok()?.parse().ok() } else { digits(text) }
}

/// Decodes three digits in HPACK's Huffman code: 0 to 2 have five bits, 3 to 9 have six.
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
