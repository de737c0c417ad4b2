//! `health_check:` and `outlier:` of an upstream: which endpoints get requests.
//!
//! This module does not know: how a check is sent.

use std::time::Duration;

use crate::values::{HOUR, MILLISECOND, authority, status_range};
use crate::yaml::Section;

/// Active health checks: the gateway sends a GET to each endpoint at intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path of the request, with an optional query.
    pub path: String,
    /// Between two checks. Default 10 s; at least 10 ms.
    pub interval: Duration,
    /// For one check. Default 1 s, or `interval` if that is shorter. Not above `interval`.
    pub timeout: Duration,
    /// Consecutive successful checks that make an unhealthy endpoint healthy. Default 2; 1 to 100.
    pub healthy: u32,
    /// Consecutive failed checks that make a healthy endpoint unhealthy. Default 3; 1 to 100.
    pub unhealthy: u32,
    /// Ranges of the statuses of a successful check, both ends included. Default 200 to 399.
    pub status: Vec<(u16, u16)>,
    /// The `host` field of the request. Default the endpoint's address.
    pub host: Option<String>,
}

/// Ejects an endpoint that fails: it gets no requests for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Consecutive failures: no connection, a broken connection, a timeout, 502, 503, 504.
    /// Default 5; 1 to 1000.
    pub failures: u32,
    /// For how long the first time. Each further ejection lasts twice as long, up to sixteen
    /// times. Default 10 s.
    pub eject: Duration,
    /// At most this share of the endpoints is ejected at the same time, rounded down. Default 50;
    /// 0 to 100.
    pub max_ejected_percent: u32,
}

impl HealthCheck {
    pub(crate) fn read(section: &Section) -> Self {
        section.require("path", "write the path of the request, such as /healthz");
        let mut status = section.list("status", final_status_range);
        if status.is_empty() {
            status.push((200, 399));
        }
        let interval = section.duration("interval", Duration::from_millis(10), HOUR).unwrap_or(Duration::from_secs(10));
        let timeout = section.duration("timeout", MILLISECOND, HOUR);
        Self {
            path: section.scalar("path", target).unwrap_or_else(|| "/".into()),
            interval,
            timeout: timeout.unwrap_or(interval.min(Duration::from_secs(1))),
            healthy: section.number("healthy", 1, 100).unwrap_or(2),
            unhealthy: section.number("unhealthy", 1, 100).unwrap_or(3),
            status,
            host: section.scalar("host", authority),
        }
    }
}

impl OutlierDetection {
    pub(crate) fn read(section: &Section) -> Self {
        Self {
            failures: section.number("failures", 1, 1000).unwrap_or(5),
            eject: section.duration("eject", MILLISECOND, HOUR).unwrap_or(Duration::from_secs(10)),
            max_ejected_percent: section.number("max_ejected_percent", 0, 100).unwrap_or(50),
        }
    }
}

/// A path with an optional query.
fn target(text: &str) -> Result<String, String> {
    let is_visible = text.bytes().all(|byte| byte > b' ' && byte < 0x7f && byte != b'#');
    if text.starts_with('/') && is_visible {
        Ok(text.to_owned())
    } else {
        Err("a path begins with / and has only visible ASCII".into())
    }
}

/// `200`, or `200-399`.
fn final_status_range(text: &str) -> Result<(u16, u16), String> {
    match status_range(text)? {
        (from, _) if from < 200 => {
            Err("interim responses (1xx) are skipped, so none of them ends a check: begin at 200".into())
        }
        range => Ok(range),
    }
}
