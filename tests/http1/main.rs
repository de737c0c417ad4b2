//! HTTP/1 on both sides of the gateway: what it must refuse, forward unchanged or repair, byte by
//! byte.
//!
//! The suites check what the RFCs require of a gateway. They share a recording upstream and a
//! strict parser with the HTTP/2 suites, and no code with the gateway.
#![allow(clippy::unwrap_used, missing_docs)]

mod case;
mod corpus;
mod early_answers;
mod fixed_response;
mod forwarding_fields;
mod half_close;
mod interim;
mod long_bodies;
mod patient_clients;
mod raw;
mod request_limits;
mod semantics;
mod smuggling;
mod tunnel;
mod upstream_connections;
mod upstream_faults;
mod websocket;
