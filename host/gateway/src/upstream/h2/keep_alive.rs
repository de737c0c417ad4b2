//! Finds HTTP/2 connections whose peer went silent without closing them, with PING (RFC 9113,
//! section 6.7).
//!
//! Only a connection with open streams is asked, and only after a silence, so a healthy busy
//! connection sends no PING. Without a response in between, two PINGs are sent at the interval and
//! later ones at [`QUIET_INTERVAL_MIN`]: gRPC servers close the connections of clients that ping
//! more often. A request that timed out while its connection was silent causes a PING at once.
//! This module does not know: requests, the pool.

use std::cell::Cell;
use std::future::poll_fn;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use witgate_config::Http2Settings;

/// PINGs at the configured interval without a response in between.
const PINGS_MAX: u32 = 2;
/// The interval of further PINGs. gRPC servers allow one in five minutes.
const QUIET_INTERVAL_MIN: Duration = Duration::from_secs(310);

/// What is known of a connection's traffic.
pub(super) struct Activity {
    streams: Cell<usize>,
    /// When the last bytes arrived, or the connection began.
    heard: Cell<Instant>,
    has_heard: Cell<bool>,
    /// When the first of the open streams began.
    busy_since: Cell<Instant>,
    /// PINGs since the last frame of a response.
    pings: Cell<u32>,
    /// A request timed out and nothing was heard since: new streams go elsewhere.
    is_suspect: Cell<bool>,
    suspected: Notify,
}

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            streams: Cell::new(0),
            heard: Cell::new(now),
            has_heard: Cell::new(false),
            busy_since: Cell::new(now),
            pings: Cell::new(0),
            is_suspect: Cell::new(false),
            suspected: Notify::new(),
        }
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.get()
    }

    pub(super) fn begin_stream(&self) {
        if self.streams.replace(self.streams.get() + 1) == 0 {
            self.busy_since.set(Instant::now());
        }
    }

    pub(super) fn end_stream(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
    }

    /// Bytes arrived.
    pub(super) fn heard(&self) {
        self.heard.set(Instant::now());
        self.has_heard.set(true);
        self.is_suspect.set(false);
    }

    /// Whether anything ever arrived.
    pub(super) fn has_heard(&self) -> bool {
        self.has_heard.get()
    }

    /// A frame of a response arrived.
    pub(super) fn answered(&self) {
        self.pings.set(0);
    }

    /// A request that began at `began` had no response in time. If the connection was silent for
    /// all that time, a PING decides whether it lives.
    pub(super) fn timed_out(&self, began: Instant) {
        if self.heard.get() <= began && self.streams.get() > 0 && !self.is_suspect.replace(true) {
            self.suspected.notify_one();
        }
    }

    /// When the next PING is due.
    fn next_ping(&self, interval: Duration) -> Instant {
        if self.streams.get() == 0 {
            return Instant::now() + interval;
        }
        let pause = if self.pings.get() < PINGS_MAX { interval } else { interval.max(QUIET_INTERVAL_MIN) };
        self.heard.get().max(self.busy_since.get()) + pause
    }

    /// Waits until the connection must prove that it lives.
    async fn silence(&self, interval: Option<Duration>) {
        while !self.is_suspect.get() {
            let Some(interval) = interval else {
                self.suspected.notified().await;
                continue;
            };
            let due = self.next_ping(interval);
            if due <= Instant::now() {
                return;
            }
            tokio::select! {
                () = self.suspected.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }
}

/// Returns once a PING was not acknowledged, and nothing else arrived meanwhile.
pub(super) async fn wait_until_dead(mut ping_pong: PingPong, activity: &Activity, settings: &Http2Settings) {
    loop {
        activity.silence(settings.ping_interval).await;
        let asked = Instant::now();
        activity.pings.set(activity.pings.get() + 1);
        // An error means that the last PING is not acknowledged yet: this one waits for it.
        let _ = ping_pong.send_ping(Ping::opaque());
        match timeout(settings.ping_timeout, poll_fn(|context| ping_pong.poll_pong(context))).await {
            Ok(Ok(_)) => activity.heard(),
            // The connection's own task reports that it ended.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) if activity.heard.get() > asked => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_connection_gets_few_pings() {
        let (activity, interval) = (Activity::new(), Duration::from_secs(5));
        activity.begin_stream();
        let pause = || activity.next_ping(interval) - activity.busy_since.get();
        assert_eq!(pause(), interval);
        activity.pings.set(PINGS_MAX);
        assert_eq!(pause(), QUIET_INTERVAL_MIN);
        activity.answered();
        assert_eq!(pause(), interval);
    }

    #[test]
    fn only_a_silent_connection_is_suspect() {
        let (activity, began) = (Activity::new(), Instant::now());
        activity.begin_stream();
        activity.heard.set(began + Duration::from_millis(1));
        activity.timed_out(began);
        assert!(!activity.is_suspect(), "something arrived after the request began");
        activity.timed_out(began + Duration::from_millis(2));
        assert!(activity.is_suspect());
        activity.heard();
        assert!(!activity.is_suspect());
    }
}
