//! What the gateway counts and logs.
//!
//! `metrics` declares every metric and `labels` their labels; `known_series` creates counters at 0.
//! `series` and `usage` cache the series of a route and of a filter, and `owners` removes those of
//! the past. `record` describes one exchange: the pipeline fills it, and `emit` turns it into
//! numbers, log lines (`access`), spans (`trace`), a list of the last failures (`failures`) and
//! lines for those who watch (`tap`). `log` and `log_export` write the gateway's own log. `otlp`
//! sends all of it to a receiver.
//! This module does not know: where the numbers come from.

mod access;
mod attempt;
mod buckets;
mod decisions;
mod emit;
mod exchange_id;
mod explain;
mod failures;
mod json;
mod known_series;
mod labels;
mod log;
mod log_export;
mod log_limit;
mod log_writer;
mod metrics;
mod openmetrics;
mod otlp;
mod prometheus_text;
mod record;
mod reload_status;
mod sent;
mod series;
mod series_owners;
mod sinks;
mod tap;
mod trace;
mod usage;

pub use access::{AccessLog, SECRET_HEADERS, ShownExchange};
pub use attempt::{AttemptRecord, UpstreamRecord};
pub use buckets::TracedHistogram;
pub(crate) use decisions::decisions;
pub use emit::OpenRecord;
pub use exchange_id::new_exchange_id;
pub use failures::{FailedExchanges, ListedFailures};
pub use labels::{
    CallLabels, CapabilityLabels, CertificateFailureLabels, CertificateLabels, EndpointLabels, FailureLabels,
    FilesLabels, FilterLabels, FilterNameLabels, FilterVersionLabels, HandshakeLabels, InstanceLabels,
    ListenerRequestLabels, LoadFailureLabels, MirrorLabels, RateLimitLabels, ReleaseDecisionLabels, ReloadLabels,
    RequestLabels, RetryLabels, RouteClassLabels, RouteLabels, STATUS_CLASSES, ShadowLabels, TraceId, TraceLabels,
    UPSTREAM_RESULTS, UpstreamCertificateFailureLabels, UpstreamCertificateLabels, UpstreamLabels, method_label,
};
pub use log::{flush_log, init_log, parse_level, set_level};
pub use log_limit::WARNINGS;
pub use metrics::Metrics;
pub use openmetrics::{Labels, MetricFamily, Sample, parse as parse_metrics};
pub use otlp::{MetricsExport, MetricsSource};
pub use prometheus_text::from_openmetrics;
pub use record::{CallOutcome, ExchangeRecord, FilterCall};
pub use reload_status::{LastReloads, Reload, ReloadStatus};
pub use sent::{SentRequest, SentRequests};
pub use series::{FilterSeries, RouteSeries, ShadowCounters, StoreSeries};
pub use series_owners::count_known;
pub use sinks::{OpenedSinks, Telemetry};
pub use tap::{TapFilter, TapReader, Taps, is_secret_name};
pub(crate) use trace::{TRACEPARENT, new_span_id};
pub use trace::{TraceContext, TraceExport, Tracer};
pub use usage::RunningCall;
