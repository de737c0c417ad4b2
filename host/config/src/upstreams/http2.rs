//! `http2:` of an upstream: its HTTP/2 connections.
//!
//! This module does not know: how a connection is made.

use std::time::Duration;

use crate::values::HOUR;
use crate::yaml::Section;

/// The HTTP/2 connections to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Settings {
    /// A connection with open streams on which nothing arrives for this time must answer a PING.
    /// Default 5 s; at least 1 s; `None` (`off`) sends a PING only after a request timed out.
    pub ping_interval: Option<Duration>,
    /// The connection is closed if the PING is not acknowledged in this time. Default 3 s; at least
    /// 100 ms.
    pub ping_timeout: Duration,
    /// Connections that each thread opens to one endpoint when streams run out. Default 4; 1 to
    /// 100.
    pub connections: usize,
}

impl Http2Settings {
    pub(crate) fn read(section: &Section) -> Self {
        let ping_interval = section.duration_or_off("ping_interval", Duration::from_secs(1), HOUR);
        let ping_timeout = section.duration("ping_timeout", Duration::from_millis(100), HOUR);
        Self {
            ping_interval: ping_interval.unwrap_or(Some(Duration::from_secs(5))),
            ping_timeout: ping_timeout.unwrap_or(Duration::from_secs(3)),
            connections: section.number("connections", 1, 100).unwrap_or(4),
        }
    }
}
