//! Traces: the context of each exchange, its spans, and their export over OTLP.
//!
//! `context` reads and writes the fields that tie the spans of several services together. `spans`
//! makes the spans of an exchange from its record once it ended, and `export` sends them from a
//! thread of its own. The price of an exchange that is not recorded is one context.
//! This module does not know: how an exchange is served.

pub(super) mod context;
mod export;
mod spans;

pub use context::TraceContext;
pub(crate) use context::{TRACEPARENT, new_span_id};
pub use export::{TraceExport, Tracer};
