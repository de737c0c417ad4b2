//! The admin listener: metrics, health, readiness, lists of filters, upstreams and failed
//! exchanges, and the releases of filters with their commands and their history.
//!
//! It runs on a thread of its own that serves no traffic, so it answers while the workers are busy
//! and a slow client delays no other one. It speaks HTTP/1.1 over TCP, TLS or a UNIX socket
//! (`connections`). Each resource has a handler in a file of its own; [`router`] has their paths,
//! and `access` decides who may give commands.
//!
//! This module does not know: how the numbers are measured.

mod access;
mod call;
mod certificates;
mod config;
mod connections;
mod console;
mod drain;
mod exchanges;
mod filters;
mod health;
mod history;
mod log;
mod metrics;
mod open_connections;
mod openapi;
mod process;
mod query;
mod releases;
mod reply;
mod role;
mod router;
mod routes;
mod tap;
mod upstreams;

pub use self::connections::{AdminListeners, serve};
pub(crate) use self::metrics::openmetrics;
