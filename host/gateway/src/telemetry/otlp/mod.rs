//! OTLP for spans, metrics, the access log and the gateway's own log: the messages, and the client
//! that sends them.
//!
//! The exporters of the OpenTelemetry SDK take only what its own pipelines made, and each span of
//! theirs costs dozens of allocations. So the messages are built here, from what the gateway
//! measures anyway. This module does not know: exchanges, when something is sent.

mod client;
mod exporter;
mod log_output;
mod log_record;
mod metric_data;
mod metrics_export;
pub(super) mod protobuf;
mod resource;
mod span_output;

pub(super) use exporter::is_exporter_thread;
pub(super) use log_output::{LogKind, OtlpLogOutput};
pub use metrics_export::{MetricsExport, MetricsSource};
pub(super) use span_output::OtlpSpanOutput;
