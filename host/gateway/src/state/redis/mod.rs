//! Stores on Redis or Valkey servers.
//!
//! `client` holds the connection that `connect` makes (`connection` to one server, `cluster` to
//! several), and `reply_guard` bounds what the server may send over it. `keyvalue`, `limiter` (with
//! `leases`) and `decisions` are the services on top, with the scripts that the server runs in
//! `scripts/`. This module does not know: filters, routes.

mod client;
mod cluster;
mod connect;
mod connection;
mod decisions;
mod keyvalue;
mod leases;
mod limiter;
mod reply_guard;

pub(super) use client::RedisClient;
pub use decisions::{NOTICE_BYTES_MAX, Notices, RedisDecisions};
pub(super) use keyvalue::RedisKeyValue;
pub(super) use leases::Leases;
pub(super) use limiter::RedisLimiter;
