//! The HTTP rules that hold for every route: pure functions from what a peer sent to what is
//! forwarded.
//!
//! No function reads the configuration, a clock or a socket, so the fuzz targets (`tests/fuzz`) can
//! call them directly. This module does not know: routes, filters, upstreams.

pub mod client_network;
pub mod fields;
pub mod forwarded;
pub mod origin;
pub mod path;
pub mod proxy_protocol;
pub mod public_address;
