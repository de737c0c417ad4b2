//! Traces: the context of each exchange, its spans, and the choice of those that are exported.
//!
//! `context` reads and writes the fields that tie the spans of several services together. `spans`
//! writes the spans of an exchange from its record once it ended, and `export` chooses the
//! exchanges. The price of an exchange that is not exported is one context.
//! This module does not know: how an exchange is served.

pub(super) mod context;
mod export;
mod spans;

pub use context::TraceContext;
pub(crate) use context::{TRACEPARENT, new_span_id};
pub use export::{TraceExport, Tracer};
