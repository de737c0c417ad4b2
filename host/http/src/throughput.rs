//! How long a peer may let the gateway wait: a timer that costs nothing while nobody is late, and a minimum rate; and whose turn it is on a serving thread.
//!
//! A deadline moves with every exchange, but a timer of the runtime is only touched when it fires or when the deadline comes nearer: so a request on a
//! busy connection arms none. Only time spent waiting for the peer counts, never the time that the gateway itself or the other side takes. Must not know: what is
//! waited for.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// A timer whose deadline moves.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once `deadline` is over; arms the runtime's timer only where it is not armed or armed for later.
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
            // It fired for an earlier deadline than today's.
            sleep.as_mut().reset(deadline.into());
        }
    }
}

/// Lets the tasks of this thread that are ready run first, but does not look for new events, as `tokio::task::yield_now` would. Who is alone does not wait.
///
/// So equal work of different tasks follows each other: calls of large filters, which find the processor's caches warm, and sending, where the first message wakes
/// a sleeping peer, which costs more than sending, and the others find it awake. Figures: docs/performance.md.
pub async fn others_first() {
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

/// The least that a peer must do while it is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// The longest time without a single byte.
    pub stall: Duration,
    /// Bytes a second on average, once `grace` is over; 0 asks for none.
    pub bytes_per_second: u32,
    /// Time that is given before the rate counts.
    pub grace: Duration,
}

/// What a peer has done so far, in one direction of one message.
#[derive(Debug, Default)]
pub struct Pace {
    bytes: u64,
    waited: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// The peer moved some bytes: it is no longer waited for.
    pub fn progressed(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// The peer is waited for from now on (or already was): the instant at which it is too slow.
    pub fn deadline(&mut self, demand: &Demand) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        let stalled = since + demand.stall;
        if demand.bytes_per_second == 0 {
            return stalled;
        }
        let earned = Duration::from_secs_f64(self.bytes as f64 / f64::from(demand.bytes_per_second));
        let allowed = demand.grace.saturating_add(earned).saturating_sub(self.waited);
        // A huge body earns a huge time, which no clock holds.
        since.checked_add(allowed).map_or(stalled, |slow| slow.min(stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand =
        Demand { stall: Duration::from_secs(30), bytes_per_second: 100, grace: Duration::from_secs(5) };

    #[test]
    fn time_is_earned_by_bytes_and_used_up_by_waiting() {
        let now = Instant::now();
        let mut pace = Pace { bytes: 1000, waited: Duration::from_secs(12), since: Some(now) };
        assert_eq!(pace.deadline(&DEMAND), now + Duration::from_secs(3));
        pace.bytes = 1 << 40;
        assert_eq!(pace.deadline(&DEMAND), now + DEMAND.stall, "a stall ends it all the same");
        pace.progressed(1);
        assert!(pace.since.is_none() && pace.waited >= Duration::from_secs(12));
    }
}
