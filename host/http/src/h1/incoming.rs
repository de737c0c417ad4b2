//! Receives HTTP/1 messages: first the head, then the body, frame by frame.
//!
//! Both sides receive this way, requests from clients and responses from upstreams. The caller
//! turns a [`ReceiveError`] into its own error, since the same event is the client's fault on one
//! side and the upstream's on the other. Deadlines are the caller's too: this module only measures
//! how long the peer let the gateway wait.
//!
//! Where the framing says that more bytes of the body follow than a small read returns, they are
//! read into a large buffer (`large_buffer.rs`), which is the next frame as it is, or moved into a
//! pipe. This module does not know: sockets, who the peer is, what the message means.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::chunked::{Decoder, Step};
use super::framing::Framing;
use super::head::{HeadScanner, Limits};
use super::io::{BufferedIo, Io, READ_BYTES};
use super::large_buffer::{LARGE_BYTES, LargeBuffer};
use crate::error::Error;
use crate::pipe::{PIPE_BYTES, Pipe};
use crate::throughput::Throughput;

/// Why a message could not be received as a whole.
#[derive(Debug)]
pub enum ReceiveError {
    /// The bytes are not valid HTTP, or they exceed a limit.
    Invalid(Error),
    /// The peer closed the connection before the message was complete.
    Closed,
    /// Reading from the connection failed.
    Io(io::Error),
    /// The deadline passed while the gateway waited for the peer.
    TooSlow,
}

/// Receives one head. Bytes that follow the head stay in the input buffer.
#[derive(Debug, Default)]
pub struct IncomingHead {
    scanner: HeadScanner,
    has_received: bool,
}

impl IncomingHead {
    /// Returns the bytes of a complete head, the empty line included, as the parsers of
    /// [`head`](super::head) expect them. Ready with an error at the end of the stream.
    pub fn poll<I: Io>(
        &mut self,
        conn: &mut BufferedIo<I>,
        limits: &Limits,
        context: &mut Context<'_>,
    ) -> Poll<Result<Bytes, ReceiveError>> {
        loop {
            if let Some(length) = self.scanner.find(&mut conn.input, limits).map_err(ReceiveError::Invalid)? {
                self.scanner = HeadScanner::default();
                return Poll::Ready(Ok(conn.input.split_to(length).freeze()));
            }
            match ready!(conn.poll_fill(context)) {
                Ok(0) => return Poll::Ready(Err(ReceiveError::Closed)),
                Ok(_) => self.has_received = true,
                Err(error) => return Poll::Ready(Err(ReceiveError::Io(error))),
            }
        }
    }

    /// Whether a read has returned any byte.
    pub fn has_received(&self) -> bool {
        self.has_received
    }
}

/// The next frame of a body, or none at its end.
pub type Received = Result<Option<Frame<Bytes>>, ReceiveError>;

/// Fewer bytes are not worth a pipe.
const PIPED_BYTES_MIN: u64 = 256 << 10;
/// A body whose peer never lets the gateway wait gives way to other tasks after so many bytes.
const TURN_BYTES: usize = 1 << 20;

/// Receives one body.
#[derive(Debug, Default)]
pub struct IncomingBody {
    rest: Rest,
    throughput: Throughput,
    /// Bytes that were read since the task gave way to others.
    turn: usize,
}

/// What is still missing of a body.
#[derive(Debug, Default)]
enum Rest {
    #[default]
    Nothing,
    Bytes(u64),
    Chunks(Decoder),
    UntilClose,
}

impl IncomingBody {
    /// Starts to receive the body of a request, whose end is known from `framing`.
    pub fn new(framing: Framing) -> Self {
        Self::with(framing, Decoder::new())
    }

    /// Starts to receive the body of a response.
    pub fn of_response(framing: Framing) -> Self {
        Self::with(framing, Decoder::of_response())
    }

    fn with(framing: Framing, decoder: Decoder) -> Self {
        let rest = match framing {
            Framing::None => Rest::Nothing,
            Framing::Length(length) => Rest::Bytes(length),
            Framing::Chunked => Rest::Chunks(decoder),
            Framing::UntilClose => Rest::UntilClose,
        };
        Self { rest, ..Self::default() }
    }

    /// Whether the whole body was received.
    #[inline]
    pub fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Whether trailers may come: only chunks carry them (RFC 9112, section 7.1.2).
    pub fn can_have_trailers(&self) -> bool {
        matches!(self.rest, Rest::Chunks(_))
    }

    /// Whether the body ends only when the peer closes the connection.
    pub fn is_until_close(&self) -> bool {
        matches!(self.rest, Rest::UntilClose)
    }

    /// The number of bytes to come, if it is known.
    pub fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Nothing => SizeHint::with_exact(0),
            Rest::Bytes(left) => SizeHint::with_exact(left),
            Rest::Chunks(_) | Rest::UntilClose => SizeHint::default(),
        }
    }

    /// Returns the next frame, or none at the end of the body. Reads only if `input` holds no
    /// frame.
    ///
    /// `deadline` is called only while the gateway waits for the peer. It gets the throughput of
    /// this body so far and returns the instant at which the peer is too slow, or none for no
    /// limit.
    pub fn poll_frame<I: Io>(
        &mut self,
        conn: &mut BufferedIo<I>,
        context: &mut Context<'_>,
        deadline: impl FnOnce(&mut Throughput) -> Option<Instant>,
    ) -> Poll<Received> {
        loop {
            if let Some(received) = self.take_frame(&mut conn.input) {
                return Poll::Ready(received);
            }
            ready!(self.poll_turn(context));
            let mut large = self.large_buffer(&conn.input);
            let read = match &mut large {
                Some((buffer, max)) => conn.io.poll_read_large(context, &mut buffer.bytes, *max),
                None => conn.poll_fill(context),
            };
            match read {
                Poll::Ready(Ok(0)) if self.is_until_close() => {
                    self.rest = Rest::Nothing;
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ReceiveError::Closed)),
                Poll::Ready(Ok(read)) => {
                    self.throughput.progressed(read);
                    self.turn += read;
                    if let Some((buffer, _)) = large {
                        self.skip(read as u64);
                        return Poll::Ready(Ok(Some(Frame::data(buffer.into_bytes()))));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ReceiveError::Io(error))),
                Poll::Pending => return self.poll_too_slow(conn, context, deadline).map(Err),
            }
        }
    }

    /// Whether [`IncomingBody::poll_pipe`] can move what comes next: only the body can fill a pipe.
    pub fn can_fill_pipe<I: Io>(&self, conn: &BufferedIo<I>) -> bool {
        conn.input.is_empty()
            && self.certain_bytes() >= PIPED_BYTES_MIN
            && !self.is_until_close()
            && conn.io.has_plain_socket()
    }

    /// Moves the bytes that come next into a pipe, if [`IncomingBody::can_fill_pipe`] allows it.
    /// None if the thread has no free pipe. `deadline` is that of [`IncomingBody::poll_frame`].
    pub fn poll_pipe<I: Io>(
        &mut self,
        conn: &mut BufferedIo<I>,
        context: &mut Context<'_>,
        deadline: impl FnOnce(&mut Throughput) -> Option<Instant>,
    ) -> Option<Poll<Result<Pipe, ReceiveError>>> {
        let mut pipe = Pipe::take()?;
        if self.poll_turn(context).is_pending() {
            return Some(Poll::Pending);
        }
        let bytes_max = usize::try_from(self.certain_bytes()).unwrap_or(PIPE_BYTES);
        Some(match conn.io.poll_fill_pipe(context, &mut pipe, bytes_max) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ReceiveError::Closed)),
            Poll::Ready(Ok(read)) => {
                self.throughput.progressed(read);
                self.turn += read;
                self.skip(read as u64);
                Poll::Ready(Ok(pipe))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(ReceiveError::Io(error))),
            Poll::Pending => self.poll_too_slow(conn, context, deadline).map(Err),
        })
    }

    /// Pending if the body must give way to other tasks.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.turn < TURN_BYTES {
            return Poll::Ready(());
        }
        self.turn = 0;
        // The first poll wakes the task after the runtime has looked for new events.
        let _ = pin!(tokio::task::yield_now()).poll(context);
        Poll::Pending
    }

    /// Ready once the peer has let the gateway wait for too long.
    fn poll_too_slow<I: Io>(
        &mut self,
        conn: &mut BufferedIo<I>,
        context: &mut Context<'_>,
        deadline: impl FnOnce(&mut Throughput) -> Option<Instant>,
    ) -> Poll<ReceiveError> {
        let Some(deadline) = deadline(&mut self.throughput) else { return Poll::Pending };
        conn.timer.poll_until(context, deadline).map(|()| ReceiveError::TooSlow)
    }

    /// The bytes that certainly follow: only the end of the connection can come before them.
    pub fn certain_bytes(&self) -> u64 {
        match &self.rest {
            Rest::Nothing => 0,
            Rest::Bytes(left) => *left,
            Rest::Chunks(decoder) => decoder.data_left(),
            Rest::UntilClose => u64::MAX,
        }
    }

    /// A large buffer for the next read and the number of bytes to read into it, if only the body
    /// can fill it.
    fn large_buffer(&self, input: &BytesMut) -> Option<(LargeBuffer, usize)> {
        let certain = self.certain_bytes();
        if !input.is_empty() || certain <= READ_BYTES as u64 {
            return None;
        }
        Some((LargeBuffer::take()?, usize::try_from(certain).unwrap_or(LARGE_BYTES).min(LARGE_BYTES)))
    }

    /// The next `bytes` were taken, and they do not pass `input`.
    fn skip(&mut self, bytes: u64) {
        match &mut self.rest {
            Rest::Nothing | Rest::UntilClose => {}
            Rest::Chunks(decoder) => decoder.skip_data(bytes),
            Rest::Bytes(left) => {
                *left = left.saturating_sub(bytes);
                if *left == 0 {
                    self.rest = Rest::Nothing;
                }
            }
        }
    }

    /// Takes the next frame from `input` without reading from the connection. Returns none if
    /// `input` does not hold one.
    pub fn take_frame(&mut self, input: &mut BytesMut) -> Option<Received> {
        match self.step(input) {
            Ok(Step::NeedsInput) => None,
            Ok(Step::Data(data)) => Some(Ok(Some(Frame::data(data)))),
            Ok(Step::End(trailers)) => Some(Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)))),
            Err(error) => Some(Err(ReceiveError::Invalid(error))),
        }
    }

    fn step(&mut self, input: &mut BytesMut) -> Result<Step, Error> {
        match &mut self.rest {
            Rest::Nothing => Ok(Step::End(http::HeaderMap::new())),
            Rest::Chunks(decoder) => {
                let step = decoder.step(input)?;
                if let Step::End(_) = step {
                    self.rest = Rest::Nothing;
                }
                Ok(step)
            }
            Rest::Bytes(_) | Rest::UntilClose if input.is_empty() => Ok(Step::NeedsInput),
            Rest::UntilClose => Ok(Step::Data(input.split().freeze())),
            Rest::Bytes(left) => {
                let length = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.skip(length as u64);
                Ok(Step::Data(input.split_to(length).freeze()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::io::LongPart;
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::time::Duration;

    use tokio::io::AsyncWrite;

    /// A connection that delivers these pieces: none is pending, an empty piece is the end.
    struct Script(VecDeque<Option<&'static [u8]>>);

    impl Io for Script {
        fn poll_fill(&mut self, _: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
            match self.0.pop_front() {
                Some(Some(piece)) => {
                    buffer.extend_from_slice(piece);
                    Poll::Ready(Ok(piece.len()))
                }
                Some(None) => Poll::Pending,
                None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }

        fn poll_read_large(
            &mut self,
            context: &mut Context<'_>,
            buffer: &mut BytesMut,
            bytes_max: usize,
        ) -> Poll<io::Result<usize>> {
            if let Some(Some(piece)) = self.0.front_mut()
                && piece.len() > bytes_max
            {
                let (first, rest) = piece.split_at(bytes_max);
                *piece = rest;
                buffer.extend_from_slice(first);
                return Poll::Ready(Ok(bytes_max));
            }
            self.poll_fill(context, buffer)
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len().min(3)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    const LIMITS: Limits = Limits { head_bytes: 64, target_bytes: 64, fields: 2 };

    fn conn(pieces: &[Option<&'static [u8]>]) -> BufferedIo<Script> {
        BufferedIo::new(Script(pieces.iter().copied().collect()), BytesMut::new())
    }

    /// Receives a body without a deadline: the data, and why it ended.
    fn receive(framing: Framing, pieces: &[Option<&'static [u8]>]) -> (Vec<u8>, Result<(), ReceiveError>) {
        let (mut conn, mut body, mut data) = (conn(pieces), IncomingBody::new(framing), vec![]);
        let context = &mut Context::from_waker(std::task::Waker::noop());
        loop {
            match body.poll_frame(&mut conn, context, |_| None) {
                Poll::Ready(Ok(Some(frame))) => data.extend_from_slice(frame.data_ref().map_or(b"", |data| data)),
                Poll::Ready(Ok(None)) => {
                    assert!(body.is_done());
                    return (data, Ok(()));
                }
                Poll::Ready(Err(error)) => return (data, Err(error)),
                Poll::Pending => {}
            }
        }
    }

    #[test]
    fn a_head_arrives_in_pieces_and_leaves_the_rest() {
        let mut conn = conn(&[Some(b"GET / HTTP/1.1\r\n"), None, Some(b"\r\nrest"), Some(b"")]);
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let mut head = IncomingHead::default();
        assert!(head.poll(&mut conn, &LIMITS, context).is_pending());
        assert!(head.has_received());
        let Poll::Ready(Ok(bytes)) = head.poll(&mut conn, &LIMITS, context) else { panic!("the head is complete") };
        assert_eq!((&bytes[..], &conn.input[..]), (&b"GET / HTTP/1.1\r\n\r\n"[..], &b"rest"[..]));
        assert!(matches!(head.poll(&mut conn, &LIMITS, context), Poll::Ready(Err(ReceiveError::Closed))));
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        for (framing, pieces, data) in [
            (Framing::None, vec![], ""),
            (Framing::Length(5), vec![Some(&b"he"[..]), None, Some(b"lloGET")], "hello"),
            (Framing::Chunked, vec![Some(b"2\r\nhe"), None, Some(b"\r\n0\r\n\r\n")], "he"),
            (Framing::UntilClose, vec![Some(b"he"), None, Some(b"llo"), Some(b"")], "hello"),
        ] {
            let (received, ended) = receive(framing, &pieces);
            assert!(ended.is_ok() && received == data.as_bytes(), "{framing:?}: {ended:?}");
        }
    }

    #[test]
    fn a_large_read_takes_nothing_that_follows_the_body() {
        const BYTES: usize = 40 << 10;
        let text: &'static [u8] = vec![b'x'; BYTES + 7].leak();
        let mut conn = conn(&[Some(text)]);
        let mut body = IncomingBody::new(Framing::Length(BYTES as u64));
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let frame = body.poll_frame(&mut conn, context, |_| None);
        assert!(
            matches!(frame, Poll::Ready(Ok(Some(frame))) if frame.data_ref().is_some_and(|data| data.len() == BYTES))
        );
        assert!(body.is_done() && conn.input.is_empty());
        assert!(matches!(conn.poll_fill(context), Poll::Ready(Ok(7))), "the next message stays in the socket");
    }

    #[test]
    fn large_chunks_are_read_into_large_buffers() {
        const BYTES: usize = 40 << 10;
        let text = [format!("{BYTES:x}\r\n").as_bytes(), &vec![b'x'; BYTES], b"\r\n0\r\n\r\n"].concat().leak();
        let (start, rest) = text.split_at(100);
        let (data, ended) = receive(Framing::Chunked, &[Some(start), None, Some(rest)]);
        assert!(ended.is_ok() && data == vec![b'x'; BYTES], "{ended:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_fast_body_gives_way_to_other_tasks() {
        const CHUNK_BYTES: usize = 200 << 10;
        let piece: &'static [u8] = vec![b'x'; CHUNK_BYTES].leak();
        let (mut conn, mut body) =
            (conn(&[Some(piece); 20]), IncomingBody::new(Framing::Length(20 * CHUNK_BYTES as u64)));
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let mut turns = 0;
        while !body.is_done() {
            turns += usize::from(body.poll_frame(&mut conn, context, |_| None).is_pending());
        }
        assert_eq!(turns, 20 * CHUNK_BYTES / (6 * CHUNK_BYTES));
    }

    #[test]
    fn an_incomplete_body_is_an_error() {
        for framing in [Framing::Length(5), Framing::Chunked] {
            assert!(matches!(receive(framing, &[Some(b"2\r\n"), Some(b"")]).1, Err(ReceiveError::Closed)));
            assert!(matches!(receive(framing, &[Some(b"2\r\n")]).1, Err(ReceiveError::Io(_))));
        }
        assert!(matches!(receive(Framing::UntilClose, &[Some(b"he")]).1, Err(ReceiveError::Io(_))));
        assert!(matches!(receive(Framing::Chunked, &[Some(b"x")]).1, Err(ReceiveError::Io(_))));
        assert!(matches!(receive(Framing::Chunked, &[Some(b"x\r\n")]).1, Err(ReceiveError::Invalid(_))));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_deadline_counts_only_while_the_gateway_waits() {
        let (mut conn, mut body) = (conn(&[Some(b"h"), None, None]), IncomingBody::new(Framing::Length(2)));
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let past = |_: &mut Throughput| Some(Instant::now() - Duration::from_secs(1));
        assert!(matches!(body.poll_frame(&mut conn, context, past), Poll::Ready(Ok(Some(_)))));
        assert!(body.poll_frame(&mut conn, context, |_| None).is_pending());
        assert!(matches!(body.poll_frame(&mut conn, context, past), Poll::Ready(Err(ReceiveError::TooSlow))));
    }

    #[test]
    fn output_and_a_large_part_are_written_in_order() {
        let mut conn = conn(&[]);
        conn.output.extend_from_slice(b"head");
        let (mut large, mut written) = (LongPart::Bytes(Bytes::from_static(b"body")), 0);
        let context = &mut Context::from_waker(std::task::Waker::noop());
        assert!(matches!(conn.poll_write(context, &mut large, &mut written), Poll::Ready(Ok(()))));
        assert!(conn.output.is_empty() && large.is_empty() && written == 8);
    }
}
