//! The gateway from outside: the real binary, real sockets, real filters. A module for each feature.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli;
mod clients;
mod compile;
mod drain;
mod filters;
mod guests;
mod handover;
mod hotload;
mod isolation;
mod layering;
mod pages;
mod proxy;
mod reuse;
mod routes;
mod tls;
mod upstreams;
