//! `timeouts:`: how long the gateway waits for clients and filters.
//!
//! This module does not know: the timeouts of upstreams (`upstreams/`), nor how they relate to
//! these (`consistency.rs`).

use std::time::Duration;

use crate::values::{HOUR, MILLISECOND};
use crate::yaml::Section;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long the gateway waits for clients and filters. Each is at least 1 ms and at most 1 h.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// The budget of all filter calls in one phase of an exchange. Default 500 ms. It is above the
    /// timeout of every filter and below the timeout of every upstream.
    pub filters: Duration,
    /// To receive the whole head of a request. Default 10 s.
    pub request_head: Duration,
    /// To receive the whole body of a request if a filter buffers it; otherwise to receive its
    /// next byte. Default 30 s.
    pub request_body: Duration,
    /// How long a client connection may have no request. Default 60 s.
    pub idle: Duration,
    /// How long a client may accept no byte of a response. Default 30 s.
    pub send: Duration,
    /// How long a tunnel (WebSocket and other upgrades) may be silent in both directions.
    /// Default 10 min; at most 24 h.
    pub tunnel_idle: Duration,
    /// How long a drain waits for exchanges in flight. Default 30 s.
    pub drain: Duration,
    /// How long the gateway still accepts connections after SIGTERM, while `/readyz` says 503, so
    /// that load balancers can take it out. Default 0.
    pub drain_delay: Duration,
}

impl Timeouts {
    pub(crate) fn read(section: &Section) -> Self {
        let timeout = |key, default| section.duration(key, MILLISECOND, HOUR).unwrap_or(default);
        Self {
            filters: timeout("filters", Duration::from_millis(500)),
            request_head: timeout("request_head", Duration::from_secs(10)),
            request_body: timeout("request_body", Duration::from_secs(30)),
            idle: timeout("idle", Duration::from_secs(60)),
            send: timeout("send", Duration::from_secs(30)),
            tunnel_idle: section.duration("tunnel_idle", MILLISECOND, DAY).unwrap_or(Duration::from_secs(600)),
            drain: timeout("drain", Duration::from_secs(30)),
            drain_delay: section.duration("drain_delay", Duration::ZERO, HOUR).unwrap_or(Duration::ZERO),
        }
    }
}
