//! Upstreams with several endpoints. This file has the setup that the topics share.

mod balance;
mod failures;
mod limits;
mod names;
mod retries;

use std::net::SocketAddr;

use anyhow::Result;
use harness::{Client, Gateway, Response, Setup, Upstream};

/// A configuration with an upstream `u` of these endpoints. `settings` is appended to the upstream.
pub(super) fn yaml(endpoints: &[String], settings: &str) -> String {
    let list = endpoints.join(", ");
    format!(
        "upstreams: {{u: {{endpoints: [{list}], {settings}}}}}\nroutes: [{{name: all, upstream: u}}]\nreload: {{watch: false, interval: off}}\n"
    )
}

pub(super) fn url(address: SocketAddr) -> String {
    format!("\"http://{address}\"")
}

pub(super) fn urls(upstreams: &[&Upstream]) -> Vec<String> {
    upstreams.iter().map(|upstream| url(upstream.address)).collect()
}

/// A gateway with one worker thread, because turns and retry budgets are kept for each thread.
pub(super) fn gateway_to(upstreams: &[&Upstream], settings: &str) -> Result<Gateway> {
    Setup::new(&yaml(&urls(upstreams), settings))?.workers(1).start()
}

/// The address of the endpoint that serves the next request.
pub(super) fn serving_endpoint(client: &mut Client, headers: &[&str]) -> Result<String> {
    Ok(client.get("/address", headers)?.text())
}

/// The line of an endpoint's metric.
pub(super) fn endpoint_metric(metric: &str, upstream: &Upstream) -> String {
    format!("{metric}{{upstream=\"u\",endpoint=\"{}\"}}", upstream.address)
}

/// The status and the `proxy-status` error of a response that the gateway made.
pub(super) fn gateway_error(response: &Response) -> (u16, String) {
    let status = response.header("proxy-status").unwrap_or_default();
    let error = status.split("error=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default();
    (response.status, error.to_owned())
}
