//! Limits how slow a peer may be: a minimum rate, and a timer for deadlines that move. Also lets
//! other tasks of a thread run first.
//!
//! A deadline moves with every exchange, but [`Timer`] touches the runtime's timer only if it fires
//! or the deadline moves closer. So a request on a busy connection arms no timer; the price is that
//! an armed timer can fire early and is armed again. Only the time that the gateway waits for the
//! peer counts, not the time that the gateway or the other side takes. This module does not know:
//! what the gateway waits for.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// A timer for a deadline that moves.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once `deadline` has passed. Arms the runtime's timer only if it is not armed or if it
    /// is armed for a later instant.
    pub fn poll_until(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
            if sleep.deadline() > deadline.into() {
                sleep.as_mut().reset(deadline.into());
            }
            ready!(sleep.as_mut().poll(context));
            if Instant::now() >= deadline {
                self.sleep = None;
                return Poll::Ready(());
            }
            // It fired for an earlier deadline.
            sleep.as_mut().reset(deadline.into());
        }
    }
}

/// Runs the other ready tasks of this thread first. Returns at once if no other task is ready.
///
/// Unlike `tokio::task::yield_now`, it does not wait until the runtime has polled for new events.
/// It groups equal work of different tasks: calls of large filters then find warm processor caches,
/// and of several writes only the first wakes a sleeping peer, which costs more than the write. The
/// price is one more poll of the task. Figures: docs/performance.md.
pub async fn yield_to_ready_tasks() {
    let mut asked = false;
    poll_fn(|context| {
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The minimum rate of a peer while the gateway waits for it.
#[derive(Debug, Clone, Copy)]
pub struct MinRate {
    /// The longest time without a single byte.
    pub stall: Duration,
    /// The least average of bytes per second once `grace` is over; 0 means no minimum.
    pub bytes_per_second: u32,
    /// The time before the rate counts.
    pub grace: Duration,
}

impl MinRate {
    /// Limits only the time without a single byte.
    pub const fn stall_only(stall: Duration) -> Self {
        Self { stall, bytes_per_second: 0, grace: stall }
    }
}

/// Measures a peer in one direction of one message: bytes, and the time that the gateway waited.
#[derive(Debug, Default)]
pub struct Throughput {
    bytes: u64,
    waited: Duration,
    since: Option<Instant>,
}

impl Throughput {
    /// The peer sent or took `bytes`: the gateway stops waiting for it.
    pub fn progressed(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// Starts to wait for the peer, unless the gateway waits already. Returns the instant at which
    /// the peer is too slow.
    pub fn deadline(&mut self, min_rate: &MinRate) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        let stalled = since + min_rate.stall;
        if min_rate.bytes_per_second == 0 {
            return stalled;
        }
        let earned = Duration::from_secs_f64(self.bytes as f64 / f64::from(min_rate.bytes_per_second));
        let allowed = min_rate.grace.saturating_add(earned).saturating_sub(self.waited);
        // A huge body earns more time than an `Instant` can represent.
        since.checked_add(allowed).map_or(stalled, |slow| slow.min(stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_RATE: MinRate =
        MinRate { stall: Duration::from_secs(30), bytes_per_second: 100, grace: Duration::from_secs(5) };

    #[test]
    fn time_is_earned_by_bytes_and_used_up_by_waiting() {
        let now = Instant::now();
        let mut throughput = Throughput { bytes: 1000, waited: Duration::from_secs(12), since: Some(now) };
        assert_eq!(throughput.deadline(&MIN_RATE), now + Duration::from_secs(3));
        throughput.bytes = 1 << 40;
        assert_eq!(throughput.deadline(&MIN_RATE), now + MIN_RATE.stall, "a stall is too slow whatever the rate");
        throughput.progressed(1);
        assert!(throughput.since.is_none() && throughput.waited >= Duration::from_secs(12));
    }
}
