//! `retries:` of an upstream: which failures are tried again, and how often.
//!
//! This module does not know: which requests may be repeated safely.

use std::time::Duration;

use crate::values::{HOUR, MILLISECOND};
use crate::yaml::Section;

/// Which failures are tried again, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Tries after the first one. Default 1; 0 to 10.
    pub attempts: u32,
    /// From the start of one try to the head of its response. Default none, so that only `timeout`
    /// applies. It is below `timeout`.
    pub per_try_timeout: Option<Duration>,
    /// Retry if the gateway got no connection or sent nothing on it. Default true.
    pub on_connect: bool,
    /// Retry if the connection ended before the head of the response. Default true.
    pub on_reset: bool,
    /// Retry after `per_try_timeout`. Default false.
    pub on_timeout: bool,
    /// Retry after responses with these statuses. Default none.
    pub on_status: Vec<u16>,
    /// The highest share of retries in the requests of the last ten seconds, per thread, in
    /// percent. Default 20; 0 to 100. Ten retries in ten seconds are always allowed.
    pub budget_percent: u32,
    /// The longest wait before the first retry; it doubles with each further retry. Default 25 ms.
    pub backoff: Duration,
    /// The longest wait before any retry. Default 250 ms, or `backoff` if that is longer.
    pub backoff_max: Duration,
}

enum RetryOn {
    Connect,
    Reset,
    Timeout,
    Status(u16),
}

impl Retries {
    pub(crate) fn read(section: &Section) -> Self {
        let duration = |key| section.duration(key, MILLISECOND, HOUR);
        let backoff = duration("backoff").unwrap_or(Duration::from_millis(25));
        let mut retries = Self {
            attempts: section.number("attempts", 0, 10).unwrap_or(1),
            per_try_timeout: duration("per_try_timeout"),
            on_connect: true,
            on_reset: true,
            on_timeout: false,
            on_status: vec![],
            budget_percent: section.number("budget_percent", 0, 100).unwrap_or(20),
            backoff,
            backoff_max: duration("backoff_max").unwrap_or(backoff.max(Duration::from_millis(250))),
        };
        if section.has("on") {
            (retries.on_connect, retries.on_reset) = (false, false);
            for condition in section.list("on", RetryOn::parse) {
                match condition {
                    RetryOn::Connect => retries.on_connect = true,
                    RetryOn::Reset => retries.on_reset = true,
                    RetryOn::Timeout => retries.on_timeout = true,
                    RetryOn::Status(status) => retries.on_status.push(status),
                }
            }
        }
        retries
    }
}

impl RetryOn {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "connect" => Ok(Self::Connect),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            _ => match text.parse::<u16>() {
                Ok(status @ 400..=599) => Ok(Self::Status(status)),
                _ if matches!(text, "5xx" | "gateway-error" | "error") => {
                    Err("write each condition: connect, reset, timeout, 502, 503, 504".into())
                }
                _ => Err("write connect, reset, timeout or a status between 400 and 599".into()),
            },
        }
    }
}
