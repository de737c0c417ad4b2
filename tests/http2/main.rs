//! HTTP/2 from outside: conformance (h2spec), what it becomes on HTTP/1 upstreams, its conduct, gRPC and the TLS below it.
#![allow(clippy::unwrap_used, missing_docs)]

mod conduct;
mod duplex;
mod grpc;
mod h2spec;
mod peers;
#[path = "../edge/recorder.rs"]
#[allow(dead_code)]
mod recorder;
mod smuggling;
#[path = "../edge/strict.rs"]
#[allow(dead_code)]
mod strict;
mod testssl;
mod tools;
