//! OTLP for metrics and for the access log: the messages, and the client that sends them.
//!
//! Spans go through the exporter of the OpenTelemetry SDK (`trace/export.rs`). Its exporters of
//! metrics and logs take only what its own pipelines made, so these two signals are built by hand.
//! This module does not know: exchanges, when something is sent.

mod client;
mod log_output;
mod log_record;
mod metric_data;
mod metrics_export;
mod resource;

pub(super) use log_output::OtlpLogOutput;
pub use metrics_export::{MetricsExport, MetricsSource};
pub(super) use resource::resource_attributes;
