//! How HTTP must be treated whatever the route: pure functions from what a peer sent to what may go on.
//!
//! Nothing here reads the configuration, a clock or a socket, and no file imports another part of the gateway: so the fuzz targets
//! (`tests/fuzz`) build them without the runtime. Must not know: routes, filters, upstreams.

pub mod fields;
pub mod forwarded;
pub mod path;
pub mod proxy_protocol;
