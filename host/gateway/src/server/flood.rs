//! Watches the frames of an HTTP/2 client as they pass: who sends much that costs and says little is cut.
//!
//! The `h2` crate bounds what it holds in memory, but it answers every PING and SETTINGS and takes every PRIORITY, DATA without a byte of content and unknown frame for as long as they come, and it
//! waits for the rest of a frame for ever. So frame heads (RFC 9113, section 4.1) are counted here, between the socket and the library, against budgets that refill slowly, and the
//! time that an unfinished frame or header block has taken is known. Reads only: no byte is changed. Must not know: streams, requests.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;
use witgate_http::throughput::{Demand, Pace, Timer};

const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
/// Frames that make work and carry nothing, at once and per second: PING, SETTINGS, PRIORITY, DATA that is empty or padding only, CONTINUATION, unknown ones.
const IDLE_FRAMES: Budget = Budget { burst: 200.0, per_second: 20.0 };
/// RST_STREAM: a client may change its mind, but not all day (CVE-2023-44487).
const RESETS: Budget = Budget { burst: 500.0, per_second: 50.0 };
/// WINDOW_UPDATE beyond two for each KiB that was sent.
const WINDOW_UPDATES: Budget = Budget { burst: 1000.0, per_second: 100.0 };
const UPDATES_PER_BYTE: f64 = 2.0 / 1024.0;

/// How many frames of a kind a connection may send.
#[derive(Clone, Copy)]
struct Budget {
    burst: f64,
    per_second: f64,
}

/// What is left of a budget.
struct Allowance {
    budget: Budget,
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(budget: Budget) -> Self {
        Self { budget, left: budget.burst, at: Instant::now() }
    }

    /// Takes one; false where there is none left.
    fn take(&mut self, earned: f64) -> bool {
        let now = Instant::now();
        let refilled = now.duration_since(self.at).as_secs_f64() * self.budget.per_second + earned;
        self.left = (self.left + refilled).min(self.budget.burst) - 1.0;
        self.at = now;
        self.left >= 0.0
    }
}

/// What was seen so far.
pub(super) struct Watch {
    idle_frames: Allowance,
    resets: Allowance,
    window_updates: Allowance,
    written: u64,
    head: [u8; FRAME_HEAD_BYTES],
    have: usize,
    skip: usize,
    /// Since when a frame or a header block has been unfinished.
    unfinished: Option<Instant>,
    in_header_block: bool,
    /// The preface is not over before the first frame (RFC 9113, section 3.4).
    has_begun: bool,
    /// The frame being read is DATA: how slowly it may come is the body's pace.
    in_data: bool,
    /// The next byte says how much of that DATA is padding.
    is_padded: bool,
    /// A budget is used up.
    pub(super) is_flooded: bool,
}

impl Watch {
    fn new() -> Self {
        Self {
            idle_frames: Allowance::new(IDLE_FRAMES),
            resets: Allowance::new(RESETS),
            window_updates: Allowance::new(WINDOW_UPDATES),
            written: 0,
            head: [0; FRAME_HEAD_BYTES],
            have: 0,
            skip: PREFACE_BYTES,
            unfinished: Some(Instant::now()),
            in_header_block: false,
            has_begun: false,
            in_data: false,
            is_padded: false,
            is_flooded: false,
        }
    }

    /// Since when the client owes the rest of a frame or of a header block.
    pub(super) fn unfinished_since(&self) -> Option<Instant> {
        self.unfinished
    }

    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                if std::mem::take(&mut self.is_padded) && usize::from(bytes[0]) + 1 >= self.skip {
                    self.is_flooded |= !self.idle_frames.take(0.0);
                }
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            if self.have == 0 && self.has_begun && !self.in_header_block {
                // A frame begins: the time of the one before does not count for it.
                self.unfinished = None;
            }
            let taken = (FRAME_HEAD_BYTES - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == FRAME_HEAD_BYTES {
                self.have = 0;
                self.frame();
            }
        }
        let owes = self.have > 0 || (self.skip > 0 && !self.in_data) || self.in_header_block || !self.has_begun;
        self.unfinished = owes.then(|| self.unfinished.unwrap_or_else(Instant::now));
    }

    /// A frame's head is complete (RFC 9113, section 6).
    fn frame(&mut self) {
        let length = usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
        let (kind, flags) = (self.head[3], self.head[4]);
        self.skip = length;
        self.has_begun = true;
        self.in_data = kind == 0;
        let allowed = match kind {
            // DATA: the end is never idle, and what is padded is looked at with its next byte.
            0 if length > 0 || flags & 1 != 0 => {
                self.is_padded = flags & 9 == 8;
                true
            }
            // HEADERS, CONTINUATION: up to END_HEADERS.
            1 => {
                self.in_header_block = flags & 4 == 0;
                true
            }
            9 => {
                self.in_header_block = flags & 4 == 0;
                self.idle_frames.take(0.0)
            }
            3 => self.resets.take(0.0),
            8 => {
                let earned = std::mem::take(&mut self.written) as f64 * UPDATES_PER_BYTE;
                self.window_updates.take(earned)
            }
            // The answers to what the gateway asked.
            4 | 6 if flags & 1 != 0 => true,
            _ => self.idle_frames.take(0.0),
        };
        self.is_flooded |= !allowed;
    }
}

/// A client's connection, watched.
pub(super) struct Guarded<I = Stream> {
    io: I,
    input: BytesMut,
    watch: Rc<RefCell<Watch>>,
    sending: Pace,
    timer: Timer,
    demand: Demand,
}

impl<I> Guarded<I> {
    /// Watches `io`, from which `input` was read already.
    pub(super) fn new(io: I, input: BytesMut, demand: Demand) -> (Self, Rc<RefCell<Watch>>) {
        let watch = Rc::new(RefCell::new(Watch::new()));
        watch.borrow_mut().see(&input);
        (Self { io, input, watch: watch.clone(), sending: Pace::default(), timer: Timer::default(), demand }, watch)
    }

    fn wrote(&mut self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Ok(written) = &written {
            self.sending.progressed(*written);
            self.watch.borrow_mut().written += *written as u64;
        }
        Poll::Ready(written)
    }

    /// The socket is full: ready with an error once it has been for too long.
    fn poll_stuck<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = self.sending.deadline(&self.demand);
        ready!(self.timer.poll_until(context, deadline));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes too little")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.input.is_empty() {
            let take = this.input.len().min(buffer.remaining());
            buffer.put_slice(&this.input[..take]);
            this.input.advance(take);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        this.watch.borrow_mut().see(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_write(context, bytes) {
            Poll::Ready(written) => this.wrote(written),
            Poll::Pending => this.poll_stuck(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_write_vectored(context, slices) {
            Poll::Ready(written) => this.wrote(written),
            Poll::Pending => this.poll_stuck(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // TLS takes more than the socket does: what it holds back is waited for as the rest is.
        match Pin::new(&mut this.io).poll_flush(context) {
            Poll::Ready(flushed) => {
                this.sending.progressed(0);
                Poll::Ready(flushed)
            }
            Poll::Pending => this.poll_stuck(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
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

    fn after(frames: &[Vec<u8>]) -> Watch {
        let mut watch = Watch::new();
        watch.see(&[b'x'; PREFACE_BYTES]);
        for frame in frames {
            for piece in frame.chunks(5) {
                watch.see(piece);
            }
        }
        watch
    }

    #[test]
    fn floods_use_up_their_budget_and_traffic_does_not() {
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

    #[test]
    fn an_unfinished_frame_or_block_is_noticed() {
        assert!(after(&[frame(1, 4, 10)]).unfinished_since().is_none());
        assert!(after(&[frame(1, 0, 10)]).unfinished_since().is_some(), "no END_HEADERS");
        assert!(after(&[frame(1, 0, 10), frame(9, 4, 1)]).unfinished_since().is_none());
        assert!(after(&[frame(1, 4, 10)[..12].to_vec()]).unfinished_since().is_some());
        assert!(after(&[frame(1, 4, 10)[..5].to_vec()]).unfinished_since().is_some());
        assert!(after(&[frame(0, 0, 10)[..12].to_vec()]).unfinished_since().is_none(), "a body has its own pace");
        assert!(Watch::new().unfinished_since().is_some(), "the preface is owed");
        assert!(after(&[]).unfinished_since().is_some(), "and a first frame");
    }

    #[test]
    fn an_unfinished_frame_does_not_count_for_the_next() {
        let mut watch = after(&[frame(4, 0, 6)]);
        let (one, two) = (frame(1, 4, 30), frame(1, 4, 30));
        watch.see(&one[..20]);
        let first = watch.unfinished_since();
        watch.see(&[&one[20..], &two[..20]].concat());
        assert!(first.is_some() && watch.unfinished_since() > first);
    }

    /// TLS over a full socket: it takes what it is given, and nothing of it leaves.
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

    #[test]
    fn what_tls_holds_back_is_not_waited_for_without_end() -> io::Result<()> {
        let stall = Duration::from_millis(20);
        let demand = Demand { stall, bytes_per_second: 0, grace: stall };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let flushed = runtime.block_on(async {
            let (mut guarded, _) = Guarded::new(Full, BytesMut::new(), demand);
            guarded.write_all(b"an answer").await?;
            guarded.flush().await
        });
        assert_eq!(flushed.err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
        Ok(())
    }
}
