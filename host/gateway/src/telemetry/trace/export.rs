//! Decides which exchanges are traced, and passes their spans to the thread that sends them.
//!
//! A thread that serves traffic writes the spans of an exchange into a buffer of its own and copies
//! them to the bounded buffer of the sending thread (`log_writer.rs`). What does not fit, because
//! the receiver is slow or away, is dropped and counted: an exchange never waits. This module does
//! not know: what a span contains, how a message is sent.

use std::cell::RefCell;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::super::log_writer::LogWriter;
use super::super::otlp::OtlpSpanOutput;
use super::super::record::{End, ExchangeRecord};
use super::context::TraceContext;
use super::spans::write_spans;
use http::HeaderMap;
use witgate_config::{Telemetry, Traces};

/// Spans are gathered for this long, so that one message has many of them.
const GATHER_TIME: Duration = Duration::from_millis(500);
/// The time for the last export when the gateway ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// A thread keeps a buffer of this size.
const KEPT_BYTES: usize = 16 << 10;

/// What happens to spans, in numbers.
#[derive(Clone, Default)]
pub struct TraceExport {
    /// Spans that the receiver got.
    pub exported: Counter,
    /// Spans that were dropped, because the buffer was full or the receiver refused them.
    pub dropped: Counter,
}

/// Decides which exchanges are traced, and passes their spans on.
pub struct Tracer {
    settings: Traces,
    writer: LogWriter,
}

impl Tracer {
    /// Starts the thread that exports. `None` if no receiver is configured.
    ///
    /// # Errors
    /// The text says what cannot be started.
    pub fn start(settings: &Telemetry, counters: &TraceExport) -> Result<Option<Self>, String> {
        let Some(otlp) = &settings.otlp else { return Ok(None) };
        let output = OtlpSpanOutput::new(settings, otlp, [&counters.exported, &counters.dropped].map(Clone::clone));
        let output = output.map_err(|why| format!("telemetry.otlp: {why}"))?;
        let started = LogWriter::start(counters.dropped.clone(), GATHER_TIME, output, report_dropped);
        let writer = started.map_err(|error| format!("the thread that exports traces cannot be started: {error}"))?;
        Ok(Some(Self { settings: settings.traces.clone(), writer }))
    }

    /// The context of an exchange. The request's fields then name the exchange's span.
    pub(crate) fn begin(&self, headers: &mut HeaderMap, exchange_id: u128) -> TraceContext {
        TraceContext::begin(headers, exchange_id, self.settings.sample)
    }

    /// Passes on the spans of an exchange that ended, if it is in the sample, failed or was slow.
    pub(in super::super) fn record(&self, record: &ExchangeRecord, end: &End) {
        let Some(trace) = record.trace else { return };
        if !trace.is_sampled && end.duration < self.settings.slow && !record.is_failed() {
            return;
        }
        thread_local! {
            static SPANS: RefCell<Vec<u8>> = const { RefCell::new(vec![]) };
        }
        SPANS.with_borrow_mut(|spans| {
            spans.clear();
            let count = write_spans(spans, record, trace, end);
            self.writer.append(spans, count);
            spans.shrink_to(KEPT_BYTES);
        });
    }

    /// Sends what waits. For at most two seconds.
    pub fn finish(&self) {
        self.writer.flush(FLUSH_TIMEOUT);
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.writer.close();
    }
}

fn report_dropped(spans: u64) {
    tracing::warn!(spans, "spans were dropped: the receiver of telemetry.otlp is too slow");
}
