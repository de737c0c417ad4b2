//! A writer that sends the spans that it is given.
//!
//! The thread of the writer calls it (`log_writer.rs`), so it may wait for the receiver; what piles
//! up meanwhile is bounded there. This module does not know: what a span contains.

use std::io::{self, Write};

use prometheus_client::metrics::counter::Counter;
use prost::Message as _;

use super::exporter::Exporter;
use super::protobuf::{bytes, message};
use super::resource::{resource, scope};
use witgate_config::{Otlp, Telemetry};

/// Sends spans to a receiver.
pub(in super::super) struct OtlpSpanOutput {
    exporter: Exporter,
    /// The messages `Resource` and `InstrumentationScope`.
    resource: Vec<u8>,
    scope: Vec<u8>,
    exported: Counter,
    dropped: Counter,
}

impl OtlpSpanOutput {
    /// The counters are those of the spans that the receiver accepted, and that it did not accept.
    ///
    /// # Errors
    /// The text says what cannot be started.
    pub(in super::super) fn new(
        settings: &Telemetry,
        otlp: &Otlp,
        [exported, dropped]: [Counter; 2],
    ) -> Result<Self, String> {
        let (resource, scope) = (resource(settings).encode_to_vec(), scope().encode_to_vec());
        Ok(Self { exporter: Exporter::new(otlp, "traces")?, resource, scope, exported, dropped })
    }
}

/// What is written are fields `spans` of the message `ScopeSpans`.
impl Write for OtlpSpanOutput {
    fn write(&mut self, spans: &[u8]) -> io::Result<usize> {
        let count = count_fields(spans);
        let mut request = Vec::with_capacity(spans.len() + self.resource.len() + self.scope.len() + 64);
        message(&mut request, 1, |of_resource| {
            bytes(of_resource, 1, &self.resource);
            message(of_resource, 2, |of_scope| {
                bytes(of_scope, 1, &self.scope);
                of_scope.extend_from_slice(spans);
            });
        });
        match self.exporter.send(async |client| client.send_spans(request).await) {
            Some(rejected) => {
                self.exported.inc_by(count.saturating_sub(rejected));
                self.dropped.inc_by(rejected.min(count));
            }
            None => drop(self.dropped.inc_by(count)),
        }
        Ok(spans.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The number of messages in `fields`: each is a tag of one byte, a length, and so many bytes.
fn count_fields(mut fields: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((_, rest)) = fields.split_first() {
        let digits = rest.iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let length = rest.iter().take(digits).rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
        fields = rest.get(digits + length..).unwrap_or_default();
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted() {
        let mut fields = vec![];
        for length in [0, 5, 127, 128, 300, 20_000] {
            message(&mut fields, 2, |field| field.resize(field.len() + length, 0));
        }
        assert_eq!((count_fields(&fields), count_fields(&[])), (6, 0));
    }
}
