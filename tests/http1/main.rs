//! The edge in HTTP/1, byte by byte: what a gateway must refuse, pass on and make of what misbehaves on either side.
//!
//! The suites say what the RFCs ask of a gateway, not what this one does. They share a recording upstream and a strict parser, and no code with the gateway.
#![allow(clippy::unwrap_used, missing_docs)]

mod case;
mod conduct;
mod corpus;
mod faults;
mod interim;
mod recorder;
mod reuse;
mod smuggling;
mod strict;
mod websocket;
mod wire;
