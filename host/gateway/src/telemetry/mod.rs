//! What the gateway counts and logs.
//!
//! `metrics` declares every metric and `labels` their labels. `series` caches the series of a
//! route and of a filter. `record` describes one exchange: the pipeline fills it, and this folder
//! turns it into numbers and log lines. This module does not know: where the numbers come from.

mod exchange_id;
mod labels;
mod log;
mod metrics;
mod record;
mod series;

pub use exchange_id::new_exchange_id;
pub use labels::{
    CallLabels, CertificateFailureLabels, CertificateLabels, EndpointLabels, FailureLabels, FilterLabels,
    HandshakeLabels, LoadFailureLabels, MirrorLabels, ReloadLabels, RequestLabels, RetryLabels, RouteLabels,
    UPSTREAM_RESULTS, UpstreamCertificateFailureLabels, UpstreamCertificateLabels, UpstreamLabels, method_label,
};
pub use log::init_log;
pub use metrics::Metrics;
pub use record::{AttemptRecord, CallOutcome, ExchangeRecord, FilterCall, UpstreamRecord};
pub use series::{FilterSeries, RouteSeries};
