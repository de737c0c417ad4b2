//! What may be tried again, how often, and when: decisions without effects.
//!
//! A request of which nothing was sent may go to another endpoint whatever it is; one that was sent only if doing it twice is the same as doing it once (RFC 9110, section
//! 9.2.2) and its body is in hand. The budget keeps retries a small share of the traffic: a service in trouble must not get twice the load. Must not
//! know: connections, endpoints.

use std::time::Duration;

use witgate_config::Retries;
use witgate_http::error::Kind;

/// Why a try gave no answer that can be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// No connection, or none that is free.
    Connect,
    /// The connection ended before the response's head.
    Reset,
    /// The try's time was over.
    Timeout,
    /// A response with this status.
    Status(u16),
    /// Nothing that another try would mend.
    Other,
}

impl Cause {
    /// The cause behind an error.
    pub(super) const fn of(kind: Kind) -> Self {
        match kind {
            Kind::UpstreamConnect
            | Kind::UpstreamConnectTimeout
            | Kind::UpstreamUnroutable
            | Kind::UpstreamDns
            | Kind::UpstreamCertificate
            | Kind::UpstreamTls
            | Kind::UpstreamSaturated => Self::Connect,
            Kind::UpstreamClosed => Self::Reset,
            Kind::UpstreamTimeout => Self::Timeout,
            _ => Self::Other,
        }
    }
}

/// Whether a request that is whole, and of which nothing was sent or whose method is idempotent, may be tried again after `retried` retries.
pub(super) fn is_allowed(retries: &Retries, retried: u32, cause: Cause) -> bool {
    let named = match cause {
        Cause::Connect => retries.on_connect,
        Cause::Reset => retries.on_reset,
        Cause::Timeout => retries.on_timeout,
        Cause::Status(status) => retries.on_status.contains(&status),
        Cause::Other => false,
    };
    named && retried < retries.attempts
}

/// How long to wait before retry number `retry`, from 1: anything up to a bound that doubles ("full jitter"), so that requests that failed together do not come back together.
/// `random` is at least 0 and below 1.
pub(super) fn back_off(retries: &Retries, retry: u32, random: f64) -> Duration {
    let doubled = retries.backoff.saturating_mul(1 << retry.saturating_sub(1).min(16));
    doubled.min(retries.backoff_max).mul_f64(random.clamp(0.0, 1.0))
}

const WINDOW_SECONDS: usize = 10;
/// Granted in a window however few requests there are.
const FLOOR: u64 = 10;

/// How many retries there may be: a share of the requests of the last ten seconds.
#[derive(Debug, Default)]
pub(super) struct Budget {
    slots: [Slot; WINDOW_SECONDS],
}

/// One second.
#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    second: u64,
    requests: u64,
    retries: u64,
}

impl Budget {
    /// Counts a request. `second` counts from anywhere and never goes back.
    pub(super) fn request(&mut self, second: u64) {
        self.slot(second).requests += 1;
    }

    /// Takes a retry out of the budget, if there is one left.
    pub(super) fn take(&mut self, second: u64, percent: u32) -> bool {
        let recent = self.slots.iter().filter(|slot| slot.second + WINDOW_SECONDS as u64 > second);
        let (requests, retries) = recent.fold((0, 0), |sum, slot| (sum.0 + slot.requests, sum.1 + slot.retries));
        let granted = retries < FLOOR.max(requests * u64::from(percent) / 100);
        if granted {
            self.slot(second).retries += 1;
        }
        granted
    }

    fn slot(&mut self, second: u64) -> &mut Slot {
        let slot = &mut self.slots[second as usize % WINDOW_SECONDS];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn retries(attempts: u32) -> Retries {
        Retries {
            attempts,
            per_try_timeout: None,
            on_connect: true,
            on_reset: true,
            on_timeout: false,
            on_status: vec![503],
            budget_percent: 20,
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_millis(70),
        }
    }

    #[test]
    fn what_is_named_is_tried_again() {
        let terms = retries(2);
        assert!(is_allowed(&terms, 0, Cause::Connect) && is_allowed(&terms, 1, Cause::Reset));
        assert!(is_allowed(&terms, 0, Cause::Status(503)) && !is_allowed(&terms, 0, Cause::Status(502)));
        assert!(!is_allowed(&terms, 2, Cause::Connect), "no attempts left");
        assert!(!is_allowed(&terms, 0, Cause::Timeout) && !is_allowed(&terms, 0, Cause::Other));
    }

    #[test]
    fn waits_double_up_to_a_bound() {
        let terms = retries(9);
        let longest: Vec<_> = (1..5).map(|retry| back_off(&terms, retry, 1.0).as_millis()).collect();
        assert_eq!(longest, [20, 40, 70, 70]);
        assert_eq!(back_off(&terms, u32::MAX, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_quiet_upstream_has_its_floor_again_after_the_window() {
        let mut budget = Budget::default();
        assert_eq!((0..20).filter(|_| budget.take(100, 20)).count(), 10);
        assert!(!budget.take(109, 20) && budget.take(110, 20));
    }

    proptest! {
        #[test]
        fn retries_stay_within_their_share(steps in prop::collection::vec((0..3_u64, 0..50_u32, 0..50_u32), 1..60), percent in 0..=100_u32) {
            let mut budget = Budget::default();
            let mut second = 1000;
            let mut log: Vec<(u64, u64, u64)> = vec![];
            for (pause, requests, wanted) in steps {
                second += pause;
                (0..requests).for_each(|_| budget.request(second));
                let granted = (0..wanted).filter(|_| budget.take(second, percent)).count() as u64;
                log.push((second, u64::from(requests), granted));
                let recent = || log.iter().filter(|entry| entry.0 + WINDOW_SECONDS as u64 > second);
                let (seen, taken) = recent().fold((0, 0), |sum, entry| (sum.0 + entry.1, sum.1 + entry.2));
                let bound = FLOOR.max(seen * u64::from(percent) / 100);
                // What was granted earlier, when more requests were recent, stays granted.
                prop_assert!(granted == 0 || taken <= bound, "{taken} of {bound}");
                prop_assert!(granted == u64::from(wanted) || taken >= bound, "refused below the bound");
            }
        }
    }
}
