//! A writer that sends the log lines that it is given, as log records.
//!
//! The thread of the log calls it (`log_writer.rs`), so it may wait for the receiver; what piles up
//! meanwhile is bounded there. Lines that the receiver does not accept are counted and lost.
//! This module does not know: which exchanges are logged, what the gateway logs.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prometheus_client::metrics::counter::Counter;

use super::exporter::Exporter;
use super::log_record::{access_record, own_record};
use super::resource::{resource, scope};
use witgate_config::{Otlp, Telemetry};

/// Lines of one message. Lines are bounded, so a message stays below the 4 MiB that a receiver of
/// gRPC takes.
const LINES_MAX: usize = 512;

/// Which log the lines belong to.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum LogKind {
    /// The access log.
    Access,
    /// The gateway's own log.
    Own,
}

/// Sends lines of a log to a receiver.
pub(in super::super) struct OtlpLogOutput {
    exporter: Exporter,
    /// Makes the record of a line, with the time in nanoseconds.
    record: fn(&[u8], u64) -> Option<LogRecord>,
    resource: Resource,
    dropped: Counter,
}

impl OtlpLogOutput {
    /// `dropped` counts the lines that the receiver does not accept.
    ///
    /// # Errors
    /// The text says what cannot be started.
    pub(in super::super) fn new(
        kind: LogKind,
        settings: &Telemetry,
        otlp: &Otlp,
        dropped: Counter,
    ) -> Result<Self, String> {
        let (what, record): (_, fn(&[u8], u64) -> _) = match kind {
            LogKind::Access => ("the access log", access_record),
            LogKind::Own => ("the log", own_record),
        };
        Ok(Self { exporter: Exporter::new(otlp, what)?, record, resource: resource(settings), dropped })
    }

    fn send(&mut self, lines: &[&[u8]]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let log_records = lines.iter().filter_map(|line| (self.record)(line, now)).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }];
        let resource = Some(self.resource.clone());
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }],
        };
        let rejected = self.exporter.send(async |client| client.send_logs(request).await);
        self.dropped.inc_by(rejected.unwrap_or(lines.len() as u64));
    }
}

impl Write for OtlpLogOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        lines.chunks(LINES_MAX).for_each(|chunk| self.send(chunk));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
