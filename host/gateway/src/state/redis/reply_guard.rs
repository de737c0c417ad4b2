//! Bounds what a server can make the gateway hold: each reply is checked while it arrives.
//!
//! The client library collects a reply in memory until it is complete, whatever length the server
//! announces. This stream reads the lengths of RESP2 as they pass and fails the connection at the
//! first one that no operation of the gateway can have. This module does not know: commands.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest line: a length, a number, or a message.
const LINE_BYTES_MAX: usize = 4 << 10;
/// The longest string. A value has 64 KiB and a tag.
const STRING_BYTES_MAX: i64 = 128 << 10;
/// The most elements that may be missing of one reply.
const ELEMENTS_MAX: i64 = 1024;
/// The most bytes of one reply: `get_many` returns up to 64 values.
const REPLY_BYTES_MAX: usize = 8 << 20;

/// A stream whose replies are bounded.
pub(super) struct ReplyGuard<S> {
    stream: S,
    replies: Replies,
}

impl<S> ReplyGuard<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, replies: Replies::default() }
    }
}

/// Follows the structure of replies without keeping them.
#[derive(Default)]
struct Replies {
    /// Elements of the current reply that are not complete.
    missing: i64,
    /// Bytes of the current reply.
    bytes: usize,
    /// The type of the current line. `None` at its beginning.
    kind: Option<u8>,
    line_bytes: usize,
    is_negative: bool,
    number: i64,
    /// Bytes of a string, with its line break, that are still to come.
    skip: usize,
}

impl Replies {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.bytes > REPLY_BYTES_MAX {
                return Err("it is too large");
            }
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                self.bytes += passed;
                bytes = &bytes[passed..];
                if self.skip == 0 {
                    self.end_element(0);
                }
                continue;
            }
            bytes = rest;
            self.bytes += 1;
            self.line_byte(byte)?;
        }
        Ok(())
    }

    fn line_byte(&mut self, byte: u8) -> Result<(), &'static str> {
        let Some(kind) = self.kind else {
            if !b"+-:$*".contains(&byte) {
                return Err("it is not of the protocol RESP2");
            }
            (self.kind, self.line_bytes, self.is_negative, self.number) = (Some(byte), 0, false, 0);
            self.missing = self.missing.max(1);
            return Ok(());
        };
        self.line_bytes += 1;
        if self.line_bytes > LINE_BYTES_MAX {
            return Err("a line in it is too long");
        }
        if byte == b'\n' {
            return self.end_line(kind);
        }
        if matches!(kind, b'$' | b'*') {
            match byte {
                b'-' => self.is_negative = true,
                b'0'..=b'9' => self.number = self.number.saturating_mul(10).saturating_add(i64::from(byte - b'0')),
                b'\r' => {}
                _ => return Err("a length in it is not a number"),
            }
        }
        Ok(())
    }

    fn end_line(&mut self, kind: u8) -> Result<(), &'static str> {
        self.kind = None;
        match kind {
            b'$' if self.number > STRING_BYTES_MAX => return Err("a string in it is too long"),
            b'$' if !self.is_negative => self.skip = self.number as usize + 2,
            b'*' if self.is_negative => self.end_element(0),
            b'*' if self.number > ELEMENTS_MAX || self.missing > ELEMENTS_MAX => {
                return Err("it has too many elements");
            }
            b'*' => self.end_element(self.number),
            _ => self.end_element(0),
        }
        Ok(())
    }

    /// Ends an element, which has `more` elements in it.
    fn end_element(&mut self, more: i64) {
        self.missing += more - 1;
        if self.missing <= 0 {
            (self.missing, self.bytes) = (0, 0);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReplyGuard<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let checked = this.replies.feed(&buffer.filled()[before..]);
        Poll::Ready(checked.map_err(|why| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the server sent a reply that is refused: {why}"))
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReplyGuard<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_followed_at_any_cut() {
        let replies = b"+OK\r\n$-1\r\n$3\r\na\r\n\r\n*2\r\n:1\r\n*1\r\n$0\r\n\r\n*0\r\n*-1\r\n-ERR no\r\n:-5\r\n";
        for cut in 0..replies.len() {
            let mut state = Replies::default();
            assert_eq!((state.feed(&replies[..cut]), state.feed(&replies[cut..])), (Ok(()), Ok(())), "{cut}");
            assert_eq!((state.missing, state.bytes, state.kind, state.skip), (0, 0, None, 0), "{cut}");
        }
    }

    #[test]
    fn replies_above_a_bound_are_refused_at_once() {
        let long = format!("+{}", "a".repeat(LINE_BYTES_MAX + 1));
        let nested = "*1000\r\n".repeat(3);
        for reply in [
            "$536870912\r\n",
            "$99999999999999999999\r\n",
            "*2000\r\n",
            &nested,
            &long,
            "%1\r\n",
            "HTTP/1.1 200 OK\r\n",
            "$x\r\n",
        ] {
            assert!(Replies::default().feed(reply.as_bytes()).is_err(), "{reply:.30}");
        }
        let part = format!("$131072\r\n{}\r\n", "a".repeat(131_072));
        let mut state = Replies::default();
        assert_eq!(state.feed(b"*1000\r\n"), Ok(()));
        assert!((0..1000).any(|_| state.feed(part.as_bytes()).is_err()), "a reply has a bound as a whole");
    }
}
