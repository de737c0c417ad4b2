//! Limits the HTTP/2 frames of a client that cost the gateway work and carry no data.
//!
//! The `h2` crate bounds its memory, but it accepts any number of PING, SETTINGS, PRIORITY, empty
//! DATA and unknown frames, and it waits for the rest of a frame without a limit. So this module
//! reads the frame heads (RFC 9113, section 4.1) between the socket and the library. It counts them
//! against budgets that refill slowly and with the DATA and HEADERS frames of the gateway, which a
//! client answers with PING and WINDOW_UPDATE. The module also knows for how long a frame or a
//! header block has been incomplete, and how many fields trailers have. It does not change a byte.
//!
//! This module does not know: streams, requests.

mod budget;
mod frame;
mod sent;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;
use crate::net::write_batch::WriteBatch;
use budget::{Budget, TokenBucket};
use frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_HEAD_BYTES, HEADERS, PADDED, PING, PRIORITY, RST_STREAM,
    SETTINGS, STREAM_MASK, WINDOW_UPDATE,
};
use sent::SentFrames;
use witgate_http::h2::SharedCounts;
use witgate_http::throughput::{MinRate, Throughput, Timer};

const PREFACE_BYTES: usize = 24;

/// Frames that cost work and carry no data: SETTINGS, CONTINUATION, unknown frames, and DATA that
/// is empty or only padding. Each new stream earns some, because they are a part of requests.
const IDLE_FRAMES: Budget = Budget { burst: 200.0, saved: 200.0, per_second: 20.0 };
const IDLE_FRAMES_PER_STREAM: f64 = 4.0;
/// PING. gRPC clients measure the bandwidth with a PING for each DATA frame that they receive, so
/// the frames that the gateway sends earn PINGs (gRPC proposal A8).
const PINGS: Budget = Budget { burst: 200.0, saved: 2000.0, per_second: 20.0 };
const PINGS_PER_SENT_FRAME: f64 = 2.0;
/// PRIORITY. The frame is deprecated, but older clients send some for each request.
const PRIORITIES: Budget = Budget { burst: 200.0, saved: 2000.0, per_second: 20.0 };
const PRIORITIES_PER_STREAM: f64 = 100.0;
/// RST_STREAM: a client may cancel requests, but not at any rate (CVE-2023-44487). A response
/// that has begun earns one, because its stream cost the gateway no wasted request.
const RESETS: Budget = Budget { burst: 500.0, saved: 500.0, per_second: 50.0 };
/// WINDOW_UPDATE. The frames and the bytes that the gateway sends earn them.
const WINDOW_UPDATES: Budget = Budget { burst: 1000.0, saved: 10_000.0, per_second: 100.0 };
const UPDATES_PER_SENT_FRAME: f64 = 4.0;
const UPDATES_PER_BYTE: f64 = 2.0 / 1024.0;

/// A client connection whose incoming frames are counted. Writing fails if the client accepts too
/// few bytes. The `h2` crate owns one clone, and the task of the connection another one, to send
/// what the library has written.
pub(super) struct FrameLimiter<I = Stream>(Rc<RefCell<Limited<I>>>);

struct Limited<I> {
    io: WriteBatch<I>,
    /// Bytes that were read before the limiter existed.
    input: BytesMut,
    stats: Rc<RefCell<FrameStats>>,
    sending: Throughput,
    timer: Timer,
    min_rate: MinRate,
}

impl<I> Clone for FrameLimiter<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: AsyncWrite + Unpin> FrameLimiter<I> {
    /// Wraps `io`, from which `input` has been read. The client must accept `min_rate`.
    pub(super) fn new(io: I, input: BytesMut, min_rate: MinRate) -> (Self, Rc<RefCell<FrameStats>>) {
        let stats = Rc::new(RefCell::new(FrameStats::new()));
        stats.borrow_mut().received(&input);
        let (io, sending, timer) = (WriteBatch::new(io), Throughput::default(), Timer::default());
        let limited = Limited { io, input, stats: stats.clone(), sending, timer, min_rate };
        (Self(Rc::new(RefCell::new(limited))), stats)
    }

    /// From here on, written frames leave with [`FrameLimiter::poll_send`] if `is_batching`, and
    /// with each flush otherwise.
    pub(super) fn set_batching(&self, is_batching: bool) {
        self.0.borrow_mut().io.is_batching = is_batching;
    }

    /// Sends the frames that the library has written.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(context)
    }
}

/// Counts the bytes that the client accepts.
type Written<'a> = &'a mut dyn FnMut(&[u8]);

impl<I: AsyncWrite + Unpin> Limited<I> {
    /// Writes or flushes. If the socket is full, ready with an error once the client has been too
    /// slow for too long.
    fn poll_io<T>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut WriteBatch<I>, &mut Context<'_>, Written<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Self { io, stats, sending, .. } = self;
        let mut note_written = |bytes: &[u8]| {
            sending.progressed(bytes.len());
            stats.borrow_mut().sent.scan(bytes);
        };
        if let Poll::Ready(done) = work(io, context, &mut note_written) {
            return Poll::Ready(done);
        }
        let deadline = self.sending.deadline(&self.min_rate);
        ready!(self.timer.poll_until(context, deadline));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client accepts the response too slowly")))
    }

    /// Sends all that was written. Only its end, or bytes that the socket accepts, end the wait for
    /// the client: what the library writes into the buffer meanwhile does not.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = ready!(self.poll_io(context, WriteBatch::poll_send));
        self.sending.progressed(0);
        Poll::Ready(sent)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for FrameLimiter<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        if !this.input.is_empty() {
            let take = this.input.len().min(buffer.remaining());
            buffer.put_slice(&this.input[..take]);
            this.input.advance(take);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io.io).poll_read(context, buffer))?;
        this.stats.borrow_mut().received(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FrameLimiter<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_io(context, |io, context, written| io.poll_write(context, slices, written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        if this.io.is_batching { Poll::Ready(Ok(())) } else { this.poll_send(context) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.io.io).poll_shutdown(context)
    }
}

/// What the frames of a connection have cost so far.
pub(super) struct FrameStats {
    idle_frames: TokenBucket,
    resets: TokenBucket,
    window_updates: TokenBucket,
    pings: TokenBucket,
    priorities: TokenBucket,
    /// What the gateway sent and the budgets have not received yet.
    sent: SentFrames,
    /// The highest stream that the client has opened.
    last_stream: u32,
    /// The head of the current frame, of which `head_bytes` have arrived.
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    /// Bytes of the preface or of the current frame's payload that have not arrived.
    payload_left: usize,
    /// Since when a frame or a header block has been incomplete.
    incomplete_since: Option<Instant>,
    in_header_block: bool,
    /// The preface ends with the first frame (RFC 9113, section 3.4).
    has_first_frame: bool,
    /// The current frame is DATA. The minimum rate of the body limits how slowly it arrives.
    in_data: bool,
    /// The next byte is the padding length of the current DATA frame.
    expects_padding_length: bool,
    /// Counts the fields of trailers. The library drops some of them silently.
    pub(super) field_counts: SharedCounts,
    /// The current frame belongs to trailers.
    in_trailers: bool,
    /// A budget is used up.
    pub(super) is_flooded: bool,
}

impl FrameStats {
    fn new() -> Self {
        Self {
            idle_frames: TokenBucket::new(IDLE_FRAMES),
            resets: TokenBucket::new(RESETS),
            window_updates: TokenBucket::new(WINDOW_UPDATES),
            pings: TokenBucket::new(PINGS),
            priorities: TokenBucket::new(PRIORITIES),
            sent: SentFrames::default(),
            last_stream: 0,
            head: [0; FRAME_HEAD_BYTES],
            head_bytes: 0,
            payload_left: PREFACE_BYTES,
            incomplete_since: Some(Instant::now()),
            in_header_block: false,
            has_first_frame: false,
            in_data: false,
            expects_padding_length: false,
            field_counts: SharedCounts::default(),
            in_trailers: false,
            is_flooded: false,
        }
    }

    /// Since when the client has owed the rest of a frame or of a header block.
    pub(super) fn incomplete_since(&self) -> Option<Instant> {
        self.incomplete_since
    }

    fn received(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                if std::mem::take(&mut self.expects_padding_length) && usize::from(bytes[0]) + 1 >= self.payload_left {
                    self.is_flooded |= !self.idle_frames.take();
                }
                let skipped = self.payload_left.min(bytes.len());
                self.payload_left -= skipped;
                if self.in_trailers {
                    self.field_counts.payload(&bytes[..skipped]);
                }
                bytes = &bytes[skipped..];
                continue;
            }
            if self.head_bytes == 0 && self.has_first_frame && !self.in_header_block {
                // The time of the previous frame does not count for the frame that begins here.
                self.incomplete_since = None;
            }
            let taken = (FRAME_HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes == FRAME_HEAD_BYTES {
                self.head_bytes = 0;
                self.count_frame();
            }
        }
        let in_frame = self.head_bytes > 0 || (self.payload_left > 0 && !self.in_data);
        let is_incomplete = in_frame || self.in_header_block || !self.has_first_frame;
        self.incomplete_since = is_incomplete.then(|| self.incomplete_since.unwrap_or_else(Instant::now));
    }

    /// The head of a frame is complete: charges the frame to its budget.
    fn count_frame(&mut self) {
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.payload_left = length;
        self.has_first_frame = true;
        self.in_data = kind == DATA;
        let is_allowed = match kind {
            // The end of a stream is useful even without data. Padding is checked at the next byte.
            DATA if length > 0 || flags & END_STREAM != 0 => {
                self.expects_padding_length = flags & (PADDED | END_STREAM) == PADDED;
                true
            }
            HEADERS => {
                self.in_header_block = flags & END_HEADERS == 0;
                let stream = u32::from_be_bytes(stream) & STREAM_MASK;
                self.in_trailers = !self.count_stream(stream);
                if self.in_trailers {
                    self.field_counts.frame((kind, flags, stream), length);
                }
                true
            }
            CONTINUATION => {
                self.in_header_block = flags & END_HEADERS == 0;
                if self.in_trailers {
                    self.field_counts.frame((kind, flags, u32::from_be_bytes(stream) & STREAM_MASK), length);
                }
                self.idle_frames.take()
            }
            RST_STREAM => {
                self.settle_sent();
                self.resets.take()
            }
            WINDOW_UPDATE => {
                self.settle_sent();
                self.window_updates.take()
            }
            // Acknowledgements answer frames of the gateway.
            SETTINGS | PING if flags & ACK != 0 => true,
            PING => {
                self.settle_sent();
                self.pings.take()
            }
            PRIORITY => self.priorities.take(),
            _ => self.idle_frames.take(),
        };
        self.is_flooded |= !is_allowed;
    }

    /// A stream that the client opens earns the frames that belong to a request. Trailers do not.
    fn count_stream(&mut self, stream: u32) -> bool {
        let is_new = stream > self.last_stream;
        if is_new {
            self.last_stream = stream;
            self.idle_frames.earn(IDLE_FRAMES_PER_STREAM);
            self.priorities.earn(PRIORITIES_PER_STREAM);
        }
        is_new
    }

    /// Adds what the gateway sent since the last call to the budgets that it earns.
    fn settle_sent(&mut self) {
        let sent = self.sent.take();
        self.pings.earn(sent.frames as f64 * PINGS_PER_SENT_FRAME);
        self.window_updates.earn(sent.frames as f64 * UPDATES_PER_SENT_FRAME + sent.bytes as f64 * UPDATES_PER_BYTE);
        self.resets.earn(sent.heads as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt as _;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(std::iter::repeat_n(0, length.into()));
        frame
    }

    fn after(frames: &[Vec<u8>]) -> FrameStats {
        let mut stats = FrameStats::new();
        stats.received(&[b'x'; PREFACE_BYTES]);
        for frame in frames {
            for piece in frame.chunks(5) {
                stats.received(piece);
            }
        }
        stats
    }

    #[test]
    fn a_flood_uses_up_its_budget_and_normal_traffic_does_not() {
        for (kind, flags, length) in [(6, 0, 8), (4, 0, 6), (2, 0, 5), (0, 0, 0), (0, 8, 1), (42, 0, 3)] {
            assert!(after(&vec![frame(kind, flags, length); 1000]).is_flooded, "{kind}, {flags}");
        }
        let padded = |padding: u8| [&[0, 0, 10, 0, 8, 0, 0, 0, 1, padding][..], &[0; 9]].concat();
        assert!(after(&vec![padded(9); 1000]).is_flooded, "padding only");
        assert!(!after(&vec![padded(8); 1000]).is_flooded, "one byte of content");
        assert!(after(&vec![frame(3, 0, 4); 3000]).is_flooded);
        for (kind, flags, length) in [(6, 1, 8), (4, 1, 0), (0, 0, 10), (0, 9, 1), (1, 5, 30)] {
            assert!(!after(&vec![frame(kind, flags, length); 5000]).is_flooded, "{kind}, {flags}");
        }
        assert!(!after(&vec![frame(8, 0, 4); 900]).is_flooded);
    }

    /// One message of a server stream, as the gateway sends it: 40 bytes in a DATA frame.
    fn sent_message(stats: &mut FrameStats) {
        for piece in frame(0, 0, 40).chunks(7) {
            stats.sent.scan(piece);
        }
    }

    #[test]
    fn what_the_gateway_sends_earns_the_frames_that_answer_it() {
        let mut stats = after(&[frame(1, 5, 30)]);
        for _ in 0..5000 {
            // grpc-go answers a DATA frame with a window update and a PING.
            sent_message(&mut stats);
            stats.received(&[frame(8, 0, 4), frame(8, 0, 4), frame(6, 0, 8)].concat());
        }
        assert!(!stats.is_flooded, "a gRPC client measures its bandwidth");
        stats.received(&frame(6, 0, 8).repeat(2500));
        assert!(stats.is_flooded, "a PING flood after a stream");

        let mut acknowledged = after(&[]);
        for _ in 0..1000 {
            acknowledged.sent.scan(&frame(6, 1, 8));
            acknowledged.received(&frame(6, 0, 8));
        }
        assert!(acknowledged.is_flooded, "acknowledgements of PING earn nothing");
    }

    #[test]
    fn each_stream_earns_its_priorities_and_continuations() {
        let request = |number: u32, more: &[Vec<u8>]| {
            let mut head = frame(1, 4, 30);
            head[5..9].copy_from_slice(&(2 * number + 1).to_be_bytes());
            [head, more.concat()].concat()
        };
        let priorities = [frame(2, 0, 5), frame(2, 0, 5), frame(2, 0, 5), frame(0, 0, 0), frame(42, 0, 1)];
        let requests: Vec<_> = (0..5000).map(|number| request(number, &priorities)).collect();
        assert!(!after(&requests).is_flooded);
        assert!(after(&vec![request(1, &priorities); 1000]).is_flooded, "trailers earn nothing");
    }

    #[test]
    fn an_incomplete_frame_or_header_block_is_detected() {
        assert!(after(&[frame(1, 4, 10)]).incomplete_since().is_none());
        assert!(after(&[frame(1, 0, 10)]).incomplete_since().is_some(), "no END_HEADERS");
        assert!(after(&[frame(1, 0, 10), frame(9, 4, 1)]).incomplete_since().is_none());
        assert!(after(&[frame(1, 4, 10)[..12].to_vec()]).incomplete_since().is_some());
        assert!(after(&[frame(1, 4, 10)[..5].to_vec()]).incomplete_since().is_some());
        assert!(
            after(&[frame(0, 0, 10)[..12].to_vec()]).incomplete_since().is_none(),
            "the body has its own minimum rate"
        );
        assert!(FrameStats::new().incomplete_since().is_some(), "the preface is missing");
        assert!(after(&[]).incomplete_since().is_some(), "the first frame is missing");
    }

    #[test]
    fn the_time_of_an_incomplete_frame_does_not_count_for_the_next() {
        let mut stats = after(&[frame(4, 0, 6)]);
        let (one, two) = (frame(1, 4, 30), frame(1, 4, 30));
        stats.received(&one[..20]);
        let first = stats.incomplete_since();
        stats.received(&[&one[20..], &two[..20]].concat());
        assert!(first.is_some() && stats.incomplete_since() > first);
    }

    /// TLS over a full socket: it accepts all bytes and sends none.
    struct Full;

    impl AsyncWrite for Full {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// A socket whose peer reads nothing.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// Answers to PING frames, for example, must not give a client more time.
    #[test]
    fn buffered_frames_do_not_end_the_wait_for_a_client() -> io::Result<()> {
        let stall = Duration::from_millis(50);
        let min_rate = MinRate { stall, bytes_per_second: 0, grace: stall };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let sent = runtime.block_on(async {
            let (mut limiter, _) = FrameLimiter::new(Stuck, BytesMut::new(), min_rate);
            limiter.set_batching(true);
            for _ in 0..1000 {
                limiter.write_all(b"an answer").await?;
                limiter.flush().await?;
                let sending = std::future::poll_fn(|context| limiter.poll_send(context));
                if let Ok(ended) = tokio::time::timeout(stall / 10, sending).await {
                    return ended;
                }
            }
            Ok(())
        });
        assert_eq!(sent.err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
        Ok(())
    }

    #[test]
    fn a_flush_that_tls_cannot_finish_times_out() -> io::Result<()> {
        let stall = Duration::from_millis(20);
        let min_rate = MinRate { stall, bytes_per_second: 0, grace: stall };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let flushed = runtime.block_on(async {
            let (mut limiter, _) = FrameLimiter::new(Full, BytesMut::new(), min_rate);
            limiter.write_all(b"a response").await?;
            limiter.flush().await
        });
        assert_eq!(flushed.err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
        Ok(())
    }
}
