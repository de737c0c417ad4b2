//! Decodes the chunked transfer coding (RFC 9112, section 7.1) incrementally.
//!
//! A size has only hexadecimal digits, and lines end with CRLF. Extensions are dropped and bounded,
//! because a peer could send more bytes of extensions than of data. This module does not know:
//! where the bytes come from.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

use super::head;
use crate::error::{Error, Kind};

/// The longest size line, with its extension.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Bytes of extensions in a whole body, in addition to half of its data. Only an attack sends more.
const EXTENSION_BYTES_MAX: u64 = 16 << 10;
const TRAILER_BYTES_MAX: usize = 8 << 10;
/// A chunk has less than 2^60 bytes, so that no sum of sizes overflows.
const SIZE_DIGITS_MAX: usize = 15;

/// Decodes one chunked body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extensions: u64,
    data: u64,
    /// Whether spaces may follow a size.
    may_pad: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
    /// An error occurred: the decoder cannot know where the next message begins.
    Failed,
}

/// The result of [`Decoder::step`].
#[derive(Debug)]
pub enum Step {
    /// The buffer does not hold enough bytes.
    NeedsInput,
    /// The next data of the body.
    Data(Bytes),
    /// The end of the body, with its trailers.
    End(HeaderMap),
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Starts a body.
    pub const fn new() -> Self {
        Self { state: State::Size, extensions: 0, data: 0, may_pad: false }
    }

    /// Starts the body of a response. Spaces may follow its sizes, as old servers write them to
    /// fill a fixed field. In a request they would be refused, as parsers differ about them.
    pub const fn of_response() -> Self {
        Self { may_pad: true, ..Self::new() }
    }

    /// Takes the next part of the body from `buffer`. After [`Step::End`] it takes nothing more,
    /// and after an error it returns only errors.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Error> {
        let step = self.advance(buffer);
        if step.is_err() {
            self.state = State::Failed;
        }
        step
    }

    /// The bytes that are certainly data of the current chunk and have not been taken.
    pub fn data_left(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    /// Notes that the next `bytes` of [`data_left`](Self::data_left) were taken elsewhere.
    pub fn skip_data(&mut self, bytes: u64) {
        if let State::Data(left) = self.state {
            let left = left.saturating_sub(bytes);
            self.data += bytes;
            self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
        }
    }

    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Step, Error> {
        loop {
            match self.state {
                State::Size => match line(buffer, SIZE_LINE_BYTES_MAX, "a chunk's size line is too long")? {
                    None => return Ok(Step::NeedsInput),
                    Some(line) => {
                        let padding = line.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
                        let end = if self.may_pad { line.len() - padding } else { line.len() };
                        let (size, extension) = size(&line[..end])?;
                        self.extensions += extension as u64;
                        if self.extensions > EXTENSION_BYTES_MAX + self.data / 2 {
                            return Err(bad("its chunk extensions are too large"));
                        }
                        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                    }
                },
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Step::NeedsInput);
                    }
                    let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.skip_data(take as u64);
                    return Ok(Step::Data(buffer.split_to(take).freeze()));
                }
                State::DataEnd => {
                    if buffer.len() < 2 {
                        return match buffer.first() {
                            None | Some(b'\r') => Ok(Step::NeedsInput),
                            Some(_) => Err(bad("a chunk does not end with CRLF")),
                        };
                    }
                    if &buffer[..2] != b"\r\n" {
                        return Err(bad("a chunk does not end with CRLF"));
                    }
                    buffer.advance(2);
                    self.state = State::Size;
                }
                State::Trailers => return self.trailers(buffer),
                State::Done => return Ok(Step::End(HeaderMap::new())),
                State::Failed => return Err(bad("its chunked body was rejected before")),
            }
        }
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Step, Error> {
        let mut at = 0;
        loop {
            let Some(end) = memchr::memchr(b'\n', &buffer[at..]).map(|offset| at + offset) else {
                if buffer.len() > TRAILER_BYTES_MAX {
                    return Err(bad("its trailers are too large"));
                }
                return Ok(Step::NeedsInput);
            };
            if end == at || buffer[end - 1] != b'\r' {
                return Err(bad("a trailer ends with a bare LF"));
            }
            let is_last = end - 1 == at;
            at = end + 1;
            if at > TRAILER_BYTES_MAX {
                return Err(bad("its trailers are too large"));
            }
            if is_last {
                self.state = State::Done;
                let block = buffer.split_to(at).freeze();
                return Ok(Step::End(if at == 2 { HeaderMap::new() } else { head::parse_trailers(&block)? }));
            }
        }
    }

    /// Whether the end of the body was reached.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }
}

/// Takes the next line from the buffer and returns it without its CRLF.
fn line(buffer: &mut BytesMut, max: usize, too_long: &'static str) -> Result<Option<Bytes>, Error> {
    match memchr::memchr(b'\n', &buffer[..buffer.len().min(max)]) {
        Some(end) if end > 0 && buffer[end - 1] == b'\r' => {
            let mut line = buffer.split_to(end + 1);
            line.truncate(end - 1);
            Ok(Some(line.freeze()))
        }
        Some(_) => Err(bad("a chunk's size line ends with a bare LF")),
        None if buffer.len() >= max => Err(bad(too_long)),
        None => Ok(None),
    }
}

/// Parses a size line, `1a` or `1a;name=value`: the size of the chunk and the length of the
/// extension. The extension is only checked for control characters.
fn size(line: &[u8]) -> Result<(u64, usize), Error> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > SIZE_DIGITS_MAX {
        return Err(bad("a chunk's size is not a hexadecimal number"));
    }
    let extension = &line[digits..];
    let starts_well = extension.is_empty() || extension[0] == b';';
    if !starts_well || extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(bad("a chunk's size is followed by something other than an extension"));
    }
    let size = line[..digits].iter().fold(0, |size, digit| size << 4 | u64::from(hex(*digit)));
    Ok((size, extension.len()))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A') + 10,
    }
}

fn bad(why: &'static str) -> Error {
    Error::new(Kind::BadRequest, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a body that arrives `piece` bytes at a time: its data, its trailers and the number
    /// of bytes after it.
    fn decode(text: &[u8], piece: usize) -> Result<(Vec<u8>, HeaderMap, usize), &'static str> {
        let (mut decoder, mut buffer, mut data) = (Decoder::new(), BytesMut::new(), vec![]);
        let mut pieces = text.chunks(piece);
        loop {
            match decoder.step(&mut buffer).map_err(|_| "rejected")? {
                Step::Data(bytes) => data.extend_from_slice(&bytes),
                Step::End(trailers) => {
                    return Ok((data, trailers, buffer.len() + pieces.map(<[u8]>::len).sum::<usize>()));
                }
                Step::NeedsInput => buffer.extend_from_slice(pieces.next().ok_or("incomplete")?),
            }
        }
    }

    #[test]
    fn a_body_is_the_same_however_it_arrives() {
        let text = b"3\r\nabc\r\n0A;x=\"1\"\r\n0123456789\r\n0\r\nx-a: 1\r\ncontent-length: 9\r\n\r\nGET";
        for piece in 1..text.len() {
            let (data, trailers, rest) = decode(text, piece).unwrap_or_default();
            assert_eq!((data.as_slice(), trailers.len(), rest), (&b"abc0123456789"[..], 1, 3), "{piece}");
        }
    }

    #[test]
    fn an_invalid_chunked_body_is_rejected() {
        for text in [
            &b"3\nabc\r\n0\r\n\r\n"[..],
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"-1\r\n\r\n",
            b" 3\r\nabc\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
            b"3;\na\r\nabc\r\n0\r\n\r\n",
            b"3;a\rb\r\nabc\r\n0\r\n\r\n",
            b"\r\n",
            b"1000000000000000\r\n",
            b"0\r\nx-a: 1\n\r\n",
            b"0\r\n bad: 1\r\n\r\n",
            b"g\r\n",
        ] {
            assert_eq!(decode(text, 64).err(), Some("rejected"), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn only_sizes_of_responses_may_be_padded() -> Result<(), Error> {
        let text = &b"3  \t\r\nabc\r\n0     \r\n\r\n"[..];
        assert_eq!(decode(text, 64).err(), Some("rejected"));
        let (mut decoder, mut buffer) = (Decoder::of_response(), BytesMut::from(text));
        assert!(matches!(decoder.step(&mut buffer)?, Step::Data(data) if data == "abc"));
        assert!(matches!(decoder.step(&mut buffer)?, Step::End(_)));
        let mut bad = BytesMut::from(&b"3\r\r\nabc\r\n0\r\n\r\n"[..]);
        assert!(Decoder::of_response().step(&mut bad).is_err());
        Ok(())
    }

    #[test]
    fn a_rejected_body_never_ends() {
        for text in [&b"3\rabc\r\n0\r\n\r\n"[..], b"0\r\nbad\r\n\r\n"] {
            let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::from(text));
            for _ in 0..4 {
                assert!(decoder.step(&mut buffer).is_err() && !decoder.is_done());
            }
        }
    }

    #[test]
    fn extensions_are_bounded() {
        let tiny = b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(2000);
        assert_eq!(decode(&tiny, 4096).err(), Some("rejected"));
        assert_eq!(decode(&vec![b'0'; 300], 300).err(), Some("rejected"));
    }
}
