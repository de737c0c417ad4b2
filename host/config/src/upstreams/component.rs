//! `component:` of an upstream: a WebAssembly component that answers the requests itself.
//!
//! This module does not know: what a .wasm file contains, how it is called.

use std::path::Path;

use crate::filters::{Filter, read_values};
use crate::outbound::FilterHttp;
use crate::references::FilterConfig;
use crate::yaml::Section;

/// Keys of an upstream that are about servers.
const KEYS_OF_SERVERS: [&str; 12] = [
    "protocol",
    "http2",
    "balance",
    "connect_timeout",
    "body_idle_timeout",
    "idle_connections",
    "idle_timeout",
    "resolve_interval",
    "retries",
    "health_check",
    "outlier",
    "limits",
];

/// A component that answers requests.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamComponent {
    /// Where the component comes from, its pins and its limits, as for a filter. What only filters
    /// have is at its default.
    pub code: Filter,
    /// Environment variables. They may be secrets.
    pub env: FilterConfig,
}

impl UpstreamComponent {
    pub(super) fn read(upstream: &Section, base: &Path) -> Option<Self> {
        let component = upstream.optional("component", |section| {
            let env = read_values(section, "env");
            for (name, value) in env.iter() {
                if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                    section.error_at(
                        &["env", name],
                        "is not a valid environment variable: the name is empty or has =, or name or value has a NUL",
                    );
                }
            }
            let http = section.nested("http", FilterHttp::read);
            Self { code: Filter { http, ..Filter::read_code(section, base) }, env }
        });
        if component.is_some() {
            for key in KEYS_OF_SERVERS.into_iter().filter(|key| upstream.has(key)) {
                upstream.error_at(&[key], "has no effect on an upstream with `component`: remove it");
            }
        }
        component
    }
}
