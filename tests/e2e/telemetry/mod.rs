//! What an operator sees of an exchange: ids, the access log, the last failures, traces, metrics.

mod access_log;
mod export;
mod failures;
mod ids;
mod kinds;
mod metrics;
mod runtime;
mod tap;
mod traces;
mod transcript;

use anyhow::Result;
use harness::wat::{filter, header_setter, with_manifest};
use harness::{Gateway, Setup, Upstream, refusing_address};

/// A gateway whose exchanges have much to tell: filter `a` sets a field, filter `b` traps and is
/// open, and one of the two endpoints refuses connections. `yaml` has further keys.
fn eventful_gateway(upstream: &Upstream, yaml: &str) -> Result<Gateway> {
    let yaml = format!(
        "{yaml}filters: {{a: {{source: a.wasm}}, b: {{source: b.wasm, on_error: open}}}}\n\
         upstreams: {{u: {{endpoints: [\"http://{}\", \"http://{}\"], outlier: off}}}}\n\
         routes: [{{name: api, filters: [a, b], upstream: u}}]",
        refusing_address()?,
        upstream.address
    );
    let a = with_manifest(header_setter("x-a", "1", "")?, r#"{"name":"a","version":"1.2.3","request":{}}"#);
    let setup = Setup::new(&yaml)?.workers(1).access_log("");
    setup.with("a.wasm", a)?.with("b.wasm", filter("(unreachable)")?)?.start()
}
