//! Decides whether, when and how often a request is retried. All functions are free of effects.
//!
//! A request of which nothing was sent may go to another endpoint whatever its method is. A request
//! that was sent may be retried only if its method is idempotent (RFC 9110, section 9.2.2) and its
//! whole body is in memory. The retry budget keeps retries a small share of the traffic, so that a
//! failing service does not get twice the load. This module does not know: connections, endpoints.

use std::time::Duration;

use witgate_config::Retries;
use witgate_http::error::Kind;

/// Why an attempt may need a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// No connection could be made, or none was free.
    Connect,
    /// The connection closed before the response's head arrived.
    Reset,
    /// No response arrived in time.
    Timeout,
    /// The response has this status.
    Status(u16),
    /// A failure that a retry would not repair.
    Other,
}

impl Cause {
    /// The cause that belongs to an error.
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

/// Whether the configuration allows one more retry after `retried` retries. The caller has checked
/// that the request can be sent again.
pub(super) fn may_retry(retries: &Retries, retried: u32, cause: Cause) -> bool {
    let enabled = match cause {
        Cause::Connect => retries.on_connect,
        Cause::Reset => retries.on_reset,
        Cause::Timeout => retries.on_timeout,
        Cause::Status(status) => retries.on_status.contains(&status),
        Cause::Other => false,
    };
    enabled && retried < retries.attempts
}

/// The pause before retry number `retry`, counted from 1: a random part of a bound that doubles
/// with each retry ("full jitter"), so that requests that failed together do not come back
/// together. `random` is at least 0 and below 1.
pub(super) fn back_off(retries: &Retries, retry: u32, random: f64) -> Duration {
    let bound = retries.backoff.saturating_mul(1 << retry.saturating_sub(1).min(16));
    bound.min(retries.backoff_max).mul_f64(random.clamp(0.0, 1.0))
}

const WINDOW_SECONDS: usize = 10;
/// Retries that a window grants even if it has few requests.
const RETRIES_MIN: u64 = 10;

/// Limits retries to a share of the requests of the last ten seconds.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    slots: [Second; WINDOW_SECONDS],
}

/// The counts of one second.
#[derive(Debug, Default, Clone, Copy)]
struct Second {
    second: u64,
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// Counts a request. `second` is a clock with any start that never goes back.
    pub(super) fn count_request(&mut self, second: u64) {
        self.slot(second).requests += 1;
    }

    /// Takes one retry from the budget. Returns false if none is left.
    pub(super) fn try_take(&mut self, second: u64, percent: u32) -> bool {
        let recent = self.slots.iter().filter(|slot| slot.second + WINDOW_SECONDS as u64 > second);
        let (requests, retries) = recent.fold((0, 0), |sum, slot| (sum.0 + slot.requests, sum.1 + slot.retries));
        let granted = retries < RETRIES_MIN.max(requests * u64::from(percent) / 100);
        if granted {
            self.slot(second).retries += 1;
        }
        granted
    }

    fn slot(&mut self, second: u64) -> &mut Second {
        let slot = &mut self.slots[second as usize % WINDOW_SECONDS];
        if slot.second != second {
            *slot = Second { second, ..Second::default() };
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
    fn only_configured_causes_are_retried() {
        let settings = retries(2);
        assert!(may_retry(&settings, 0, Cause::Connect) && may_retry(&settings, 1, Cause::Reset));
        assert!(may_retry(&settings, 0, Cause::Status(503)) && !may_retry(&settings, 0, Cause::Status(502)));
        assert!(!may_retry(&settings, 2, Cause::Connect), "no attempts left");
        assert!(!may_retry(&settings, 0, Cause::Timeout) && !may_retry(&settings, 0, Cause::Other));
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let settings = retries(9);
        let longest: Vec<_> = (1..5).map(|retry| back_off(&settings, retry, 1.0).as_millis()).collect();
        assert_eq!(longest, [20, 40, 70, 70]);
        assert_eq!(back_off(&settings, u32::MAX, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_quiet_upstream_gets_its_minimum_again_after_the_window() {
        let mut budget = RetryBudget::default();
        assert_eq!((0..20).filter(|_| budget.try_take(100, 20)).count(), 10);
        assert!(!budget.try_take(109, 20) && budget.try_take(110, 20));
    }

    proptest! {
        #[test]
        fn retries_stay_within_their_share(
            steps in prop::collection::vec((0..3_u64, 0..50_u32, 0..50_u32), 1..60),
            percent in 0..=100_u32,
        ) {
            let mut budget = RetryBudget::default();
            let mut second = 1000;
            let mut log: Vec<(u64, u64, u64)> = vec![];
            for (pause, requests, wanted) in steps {
                second += pause;
                (0..requests).for_each(|_| budget.count_request(second));
                let granted = (0..wanted).filter(|_| budget.try_take(second, percent)).count() as u64;
                log.push((second, u64::from(requests), granted));
                let recent = || log.iter().filter(|entry| entry.0 + WINDOW_SECONDS as u64 > second);
                let (seen, taken) = recent().fold((0, 0), |sum, entry| (sum.0 + entry.1, sum.1 + entry.2));
                let bound = RETRIES_MIN.max(seen * u64::from(percent) / 100);
                // Retries that were granted when the window had more requests stay granted.
                prop_assert!(granted == 0 || taken <= bound, "{taken} of {bound}");
                prop_assert!(granted == u64::from(wanted) || taken >= bound, "refused below the bound");
            }
        }
    }
}
