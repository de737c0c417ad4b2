//! Gathers small writes, so that the frames of many HTTP/2 streams leave in one system call.
//!
//! The `h2` crate writes and flushes each DATA frame by itself. While batching is on, a flush does
//! nothing: the task of the connection calls [`WriteBatch::poll_send`] once the library has no more
//! frames. Gain: 16 responses cost one write instead of 16. Price: frames below [`LARGE_BYTES`] are
//! copied once more, and a connection whose peer does not read holds up to [`BATCH_BYTES`].
//! This module does not know: frames, streams.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

/// The most bytes that wait to be sent.
const BATCH_BYTES: usize = 32 << 10;
/// Writes of so many bytes are not copied.
const LARGE_BYTES: usize = 8 << 10;

/// A writer with a buffer in front of it.
pub struct WriteBatch<I> {
    /// The writer.
    pub io: I,
    /// Whether a flush leaves the buffered bytes to [`WriteBatch::poll_send`].
    pub is_batching: bool,
    buffered: BytesMut,
}

impl<I: AsyncWrite + Unpin> WriteBatch<I> {
    /// Without buffered bytes, and without batching.
    pub fn new(io: I) -> Self {
        Self { io, is_batching: false, buffered: BytesMut::new() }
    }

    /// Takes bytes from `slices` and returns their number. `written` gets the bytes that `io`
    /// accepted meanwhile.
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        written: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if bytes < LARGE_BYTES && self.buffered.len() + bytes > BATCH_BYTES {
            ready!(self.poll_send(context, written))?;
        }
        if bytes < LARGE_BYTES {
            if self.buffered.capacity() == 0 {
                self.buffered.reserve(BATCH_BYTES);
            }
            slices.iter().for_each(|slice| self.buffered.extend_from_slice(slice));
            return Poll::Ready(Ok(bytes));
        }
        loop {
            let before = self.buffered.len();
            let mut all: SmallVec<[IoSlice<'_>; 8]> = SmallVec::new();
            if before > 0 {
                all.push(IoSlice::new(&self.buffered));
            }
            all.extend(slices.iter().copied());
            let count = ready!(Pin::new(&mut self.io).poll_write_vectored(context, &all))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let mut left = count;
            for slice in &all {
                let part = left.min(slice.len());
                written(&slice[..part]);
                left -= part;
            }
            drop(all);
            self.buffered.advance(count.min(before));
            if count > before {
                self.buffered = BytesMut::new();
                return Poll::Ready(Ok(count - before));
            }
        }
    }

    /// Sends the buffered bytes, and flushes `io`. `written` gets the bytes that `io` accepted.
    pub fn poll_send(&mut self, context: &mut Context<'_>, written: &mut dyn FnMut(&[u8])) -> Poll<io::Result<()>> {
        while !self.buffered.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(context, &self.buffered))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            written(&self.buffered[..count]);
            self.buffered.advance(count);
        }
        self.buffered = BytesMut::new();
        // TLS accepts more bytes than the socket does and keeps the rest until it is flushed.
        Pin::new(&mut self.io).poll_flush(context)
    }

    /// Flushes, unless the buffered bytes leave later.
    pub fn poll_flush(&mut self, context: &mut Context<'_>, written: &mut dyn FnMut(&[u8])) -> Poll<io::Result<()>> {
        if self.is_batching { Poll::Ready(Ok(())) } else { self.poll_send(context, written) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Accepts this many bytes in all, and then none.
    struct Socket(Vec<u8>, usize);

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.1 - self.0.len());
            self.0.extend_from_slice(&bytes[..count]);
            if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes pieces of these lengths until one is not taken: the bytes that the batch took, those
    /// that the socket got, and those that were reported.
    fn write(accepts: usize, lengths: &[usize]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let context = &mut Context::from_waker(Waker::noop());
        let mut batch = WriteBatch::new(Socket(vec![], accepts));
        batch.is_batching = true;
        let (mut taken, mut reported) = (vec![], vec![]);
        let mut note = |bytes: &[u8]| reported.extend_from_slice(bytes);
        'pieces: for (number, length) in lengths.iter().enumerate() {
            let piece = vec![number as u8; *length];
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let (one, two) = rest.split_at(rest.len() / 2);
                let slices = [IoSlice::new(one), IoSlice::new(two)];
                let Poll::Ready(Ok(count)) = batch.poll_write(context, &slices, &mut note) else { break 'pieces };
                taken.extend_from_slice(&rest[..count]);
                rest = &rest[count..];
            }
            assert!(batch.poll_flush(context, &mut note).is_ready());
        }
        let _ = batch.poll_send(context, &mut note);
        assert!(batch.buffered.len() <= BATCH_BYTES);
        (taken, batch.io.0, reported)
    }

    #[test]
    fn pieces_leave_in_order_and_are_reported() {
        for lengths in [&[10, 20, 30][..], &[10, 9000, 10], &[7000; 20], &[9000; 3], &[5, 40_000, 1, 8 << 10]] {
            let (taken, sent, reported) = write(usize::MAX, lengths);
            assert_eq!(taken.len(), lengths.iter().sum::<usize>());
            assert!(taken == sent && sent == reported, "{lengths:?}");
        }
    }

    #[test]
    fn a_full_socket_bounds_what_is_taken() {
        let (taken, sent, reported) = write(10_000, &[1000; 200]);
        assert!(taken.len() <= 10_000 + BATCH_BYTES && sent.len() == 10_000 && sent == reported);
        assert!(taken.starts_with(&sent));
    }
}
