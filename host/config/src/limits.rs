//! `limits:`: bounds on the memory and the connections that clients can use.
//!
//! This module does not know: how a limit is enforced.

use crate::yaml::Section;

/// Bounds on the memory and the connections that clients can use.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Concurrent exchanges over all threads; the gateway answers 503 above it. Default 1024;
    /// 1 to 1,000,000.
    pub in_flight: usize,
    /// Client connections over all threads; above it, new ones wait in the kernel's queue.
    /// Default 10,000; 1 to 1,000,000.
    pub connections: usize,
    /// Bytes of a request's head. Default 64 KiB; 8 KiB to 1 MiB.
    pub request_head_bytes: usize,
    /// Header lines of a request. Default 100; 16 to 1000.
    pub request_fields: usize,
    /// Bytes of a request's body. Default 1 GiB; 1 B to 1 TiB.
    pub request_body_bytes: u64,
    /// Concurrent requests on one HTTP/2 connection. Default 128; 1 to 10,000.
    pub streams: u32,
    /// Connections of one IPv4 address or IPv6 /64; the gateway closes connections above it.
    /// Default 0: as many as are free; at most 1,000,000. Trusted proxies are not limited.
    pub connections_per_client: usize,
    /// Concurrent exchanges of one client; the gateway answers 429 above it. Default 0: as many as
    /// are free; at most 1,000,000. The client of a trusted proxy is the one that it names.
    pub in_flight_per_client: usize,
    /// The lowest average rate of a body in either direction, in bytes per second. It applies
    /// after the gateway has waited 5 s for the client. Default 240; 0 disables it.
    pub min_bytes_per_second: u32,
    /// Bytes of bodies that the gateway holds in memory for filters, over all exchanges.
    /// Default 256 MiB; 64 KiB to 64 GiB.
    pub buffered_bytes: usize,
    /// The same for the exchanges of one client: an IPv4 address, or an IPv6 /64. Default a quarter
    /// of `buffered_bytes`, but at least 16 MiB; 64 KiB to 64 GiB.
    pub buffered_bytes_per_client: usize,
}

/// A share of `buffered_bytes` is never too small for the largest body of a filter.
const SHARE_BYTES_MIN: usize = 16 << 20;

impl Limits {
    pub(crate) fn read(section: &Section) -> Self {
        let buffered_bytes = section.size("buffered_bytes", 64 << 10, 64 << 30).unwrap_or(256 << 20);
        let client = section.size("buffered_bytes_per_client", 64 << 10, 64 << 30);
        Self {
            in_flight: section.number("in_flight", 1, 1_000_000).unwrap_or(1024),
            connections: section.number("connections", 1, 1_000_000).unwrap_or(10_000),
            request_head_bytes: section.size("request_head_bytes", 8 << 10, 1 << 20).unwrap_or(64 << 10),
            request_fields: section.number("request_fields", 16, 1000).unwrap_or(100),
            request_body_bytes: section.size("request_body_bytes", 1, 1 << 40).unwrap_or(1 << 30) as u64,
            streams: section.number("streams", 1, 10_000).unwrap_or(128),
            connections_per_client: section.number("connections_per_client", 0, 1_000_000).unwrap_or(0),
            in_flight_per_client: section.number("in_flight_per_client", 0, 1_000_000).unwrap_or(0),
            min_bytes_per_second: section.number("min_bytes_per_second", 0, 1_000_000).unwrap_or(240),
            buffered_bytes,
            buffered_bytes_per_client: client.unwrap_or((buffered_bytes / 4).max(SHARE_BYTES_MIN)),
        }
    }

    /// The share of one route in `buffered_bytes` that does not set its own: three quarters, but at
    /// least 16 MiB.
    pub fn buffered_bytes_of_route(&self) -> usize {
        (self.buffered_bytes / 4 * 3).max(SHARE_BYTES_MIN)
    }
}
