//! Sends spans to an OTLP receiver from a thread of its own.
//!
//! Threads that serve traffic put the spans of an exchange into a bounded queue. If it is full
//! because the receiver is slow or away, the spans are dropped and counted: an exchange never
//! waits. This module does not know: what a span contains.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use super::super::otlp::resource_attributes;
use super::super::record::{End, ExchangeRecord};
use super::context::TraceContext;
use super::spans::spans;
use http::HeaderMap;
use witgate_config::{Otlp, OtlpProtocol, Telemetry, Traces};

/// Exchanges whose spans wait for the export.
const QUEUE_MAX: usize = 2048;
/// Exchanges of one export.
const BATCH_MAX: usize = 256;
/// An export waits this long for more exchanges.
const BATCH_TIME: Duration = Duration::from_millis(500);
/// The time for the last export when the gateway ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens to spans, in numbers.
#[derive(Clone, Default)]
pub struct TraceExport {
    /// Spans that the receiver got.
    pub exported: Counter,
    /// Spans that were dropped, because the queue was full or the receiver refused them.
    pub dropped: Counter,
}

/// Decides which exchanges are traced, and passes their spans on.
pub struct Tracer {
    settings: Traces,
    scope: InstrumentationScope,
    queue: mpsc::Sender<Vec<SpanData>>,
    counters: TraceExport,
    /// Ends when the thread has sent everything.
    thread: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Tracer {
    /// Starts the thread that exports. `None` if no receiver is configured.
    ///
    /// # Errors
    /// The text says what cannot be started.
    pub fn start(settings: &Telemetry, counters: &TraceExport) -> Result<Option<Self>, String> {
        let Some(otlp) = &settings.otlp else { return Ok(None) };
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let (otlp, resource, own) = (otlp.clone(), resource(settings), counters.clone());
        let run = move || run_export(&otlp, &resource, spans, &own);
        let thread = std::thread::Builder::new().name("telemetry".into()).spawn(run);
        let thread = thread.map_err(|error| format!("the thread that exports traces cannot be started: {error}"))?;
        let scope = InstrumentationScope::builder("witgate").with_version(env!("CARGO_PKG_VERSION")).build();
        let thread = std::sync::Mutex::new(Some(thread));
        Ok(Some(Self { settings: settings.traces.clone(), scope, queue, counters: counters.clone(), thread }))
    }

    /// The context of an exchange. The request's fields then name the exchange's span.
    pub(crate) fn begin(&self, headers: &mut HeaderMap, exchange_id: u128) -> TraceContext {
        TraceContext::begin(headers, exchange_id, self.settings.sample)
    }

    /// Passes on the spans of an exchange that ended, if it is in the sample, failed or was slow.
    pub(in super::super) fn record(&self, record: &ExchangeRecord, end: &End) {
        let Some(trace) = record.trace else { return };
        if !trace.is_sampled && !record.is_failed() && end.duration < self.settings.slow {
            return;
        }
        // A full queue costs no spans to be made.
        match self.queue.try_reserve() {
            Ok(permit) => permit.send(spans(record, trace, &self.scope, end)),
            Err(_) => drop(self.counters.dropped.inc_by(1 + record.calls.len() as u64)),
        }
    }

    /// Sends what waits, and ends. For at most two seconds.
    pub fn finish(self) {
        let Self { queue, thread, .. } = self;
        drop(queue);
        let thread = thread.into_inner().unwrap_or_default();
        let deadline = std::time::Instant::now() + FLUSH_TIMEOUT;
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What the spans of this process have in common.
fn resource(settings: &Telemetry) -> Resource {
    let attributes = resource_attributes(settings).map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty().with_attributes(attributes).build()
}

fn run_export(otlp: &Otlp, resource: &Resource, spans: mpsc::Receiver<Vec<SpanData>>, counters: &TraceExport) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "traces are not exported: the thread's runtime cannot be created");
            return;
        }
    };
    runtime.block_on(async {
        match exporter(otlp) {
            Ok(mut exporter) => {
                exporter.set_resource(resource);
                export_batches(&exporter, otlp, spans, counters).await;
            }
            Err(error) => tracing::error!(%error, endpoint = otlp.endpoint, "traces are not exported"),
        }
    });
}

fn exporter(otlp: &Otlp) -> Result<SpanExporter, String> {
    match otlp.protocol {
        OtlpProtocol::Http => {
            let headers: HashMap<String, String> =
                otlp.headers.iter().map(|(name, value)| (name.to_string(), value.expose().to_owned())).collect();
            SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(format!("{}/v1/traces", otlp.endpoint))
                .with_timeout(otlp.timeout)
                .with_headers(headers)
                .build()
        }
        OtlpProtocol::Grpc => {
            let fields = otlp.headers.iter().filter_map(|(name, value)| {
                let mut value = http::HeaderValue::from_str(value.expose()).ok()?;
                value.set_sensitive(true);
                Some((name.clone(), value))
            });
            let metadata = opentelemetry_otlp::tonic_types::metadata::MetadataMap::from_headers(fields.collect());
            SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&otlp.endpoint)
                .with_timeout(otlp.timeout)
                .with_metadata(metadata)
                .build()
        }
    }
    .map_err(|error| error.to_string())
}

/// Exports until all senders are gone and the queue is empty. Reports the first of several failed
/// exports, and the first one that succeeds again.
async fn export_batches(
    exporter: &SpanExporter,
    otlp: &Otlp,
    mut spans: mpsc::Receiver<Vec<SpanData>>,
    counters: &TraceExport,
) {
    let mut has_failed = false;
    let mut exchanges = vec![];
    while spans.recv_many(&mut exchanges, BATCH_MAX).await > 0 {
        if exchanges.len() < BATCH_MAX && !spans.is_closed() {
            tokio::time::sleep(BATCH_TIME).await;
            while exchanges.len() < BATCH_MAX
                && let Ok(more) = spans.try_recv()
            {
                exchanges.push(more);
            }
        }
        let batch: Vec<SpanData> = exchanges.drain(..).flatten().collect();
        let count = batch.len() as u64;
        let exported = tokio::time::timeout(otlp.timeout, exporter.export(batch)).await;
        let failure = match exported {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no response within {:?}", otlp.timeout)),
        };
        match failure {
            None => {
                counters.exported.inc_by(count);
                if has_failed {
                    tracing::info!(endpoint = otlp.endpoint, "traces are exported again");
                }
                has_failed = false;
            }
            Some(error) => {
                counters.dropped.inc_by(count);
                if !has_failed {
                    tracing::warn!(endpoint = otlp.endpoint, error, "traces cannot be exported and are lost");
                }
                has_failed = true;
            }
        }
    }
}
