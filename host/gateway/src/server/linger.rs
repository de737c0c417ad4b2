//! How long the gateway reads on after its response, when a request's body is not wanted.
//!
//! A client that is still sending must be able to read the response: if the gateway closed the
//! socket at once, the unread bytes would make the kernel send a reset, and the reset can destroy
//! the response (RFC 9112, section 9.6). So the gateway reads and discards, within bounds of time,
//! silence and bytes. An exchange is over by then, so lingering holds no permit of
//! `limits.in_flight`. It does hold a connection: if connections are scarce or the gateway drains,
//! the bounds are tight. This module does not know: protocols.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::worker::Worker;

/// The longest time in all: an upload that takes longer than this is cut.
const TIME_MAX: Duration = Duration::from_secs(30);
/// The longest silence of the client.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Bytes that are read and discarded.
const BYTES_MAX: usize = 64 << 20;
/// Replaces both times while connections are scarce.
const SCARCE_TIME_MAX: Duration = Duration::from_secs(1);

/// The bounds of one linger.
pub(super) struct Linger {
    ends: Instant,
    silence: Duration,
    bytes_left: usize,
}

impl Linger {
    /// The bounds for a connection whose response was sent just before.
    pub(super) fn new(worker: &Worker) -> Self {
        let max = worker.shared.snapshot.load().config.limits.connections;
        // Above three quarters of limits.connections.
        let is_scarce = worker.is_draining() || worker.shared.connections.in_use() > max - max / 4;
        let (time, silence) = if is_scarce { (SCARCE_TIME_MAX, SCARCE_TIME_MAX) } else { (TIME_MAX, SILENCE_MAX) };
        Self { ends: Instant::now() + time, silence, bytes_left: BYTES_MAX }
    }

    /// Discards what `read` returns (the number of bytes that arrived, 0 at the end) until the end
    /// or a bound.
    pub(super) async fn discard(mut self, mut read: impl FnMut(&mut Context<'_>) -> Poll<usize>) {
        loop {
            let wait = self.silence.min(self.ends.saturating_duration_since(Instant::now()));
            match tokio::time::timeout(wait, poll_fn(&mut read)).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) if bytes > self.bytes_left || Instant::now() >= self.ends => return,
                Ok(bytes) => self.bytes_left -= bytes,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linger(time: Duration, silence: Duration, bytes_left: usize) -> Linger {
        Linger { ends: Instant::now() + time, silence, bytes_left }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn every_bound_ends_it() {
        const LONG: Duration = Duration::from_secs(100);
        const SHORT: Duration = Duration::from_millis(20);
        let mut reads = 0;
        linger(LONG, LONG, 10)
            .discard(|_| {
                reads += 1;
                Poll::Ready(4)
            })
            .await;
        assert_eq!(reads, 3, "bytes");
        linger(LONG, SHORT, 10).discard(|_| Poll::Pending).await;
        linger(SHORT, LONG, 10).discard(|_| Poll::Pending).await;
        linger(SHORT, LONG, usize::MAX).discard(|_| Poll::Ready(1)).await;
        linger(LONG, LONG, 10).discard(|_| Poll::Ready(0)).await;
    }
}
