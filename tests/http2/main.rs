//! HTTP/2 on both sides of the gateway: conformance (h2spec), translation to HTTP/1 upstreams, flow
//! control, cancellation, gRPC, and the TLS below it (testssl.sh).
#![allow(clippy::unwrap_used, missing_docs)]

mod cancellation;
mod client;
mod expectation;
mod extended_connect;
mod flow_control;
mod grpc;
mod h2spec;
mod scripted;
mod semantics;
mod smuggling;
mod testssl;
mod tools;
mod trailers;
mod upstream;
mod upstream_connections;
mod upstream_malformed;
mod upstream_silence;
mod upstream_websocket;
mod websocket_accept;

use harness::{Gateway, Setup, Upstream};

/// Starts a gateway with one thread.
fn start_gateway(yaml: &str) -> anyhow::Result<Gateway> {
    Setup::new(yaml)?.workers(1).start()
}

/// Starts a gateway with one thread, whose only route goes to this upstream.
fn gateway_to(upstream: &Upstream) -> anyhow::Result<Gateway> {
    let yaml = upstream.yaml().replace("2s", "20s");
    start_gateway(&format!("upstreams: {{u: {yaml}}}\nroutes: [{{upstream: u}}]"))
}
