//! The target `otlp` of the access log: a writer that sends the lines it is given.
//!
//! The thread of the log calls it (`log_writer.rs`), so it may wait for the receiver; what piles up
//! meanwhile is bounded there. Lines that the receiver does not accept are counted and lost.
//! This module does not know: which exchanges are logged.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::Runtime;

use super::client::OtlpClient;
use super::log_record::log_record;
use super::resource::{resource, scope};
use witgate_config::{Otlp, Telemetry};

/// Lines of one message. Lines are bounded, so a message stays below the 4 MiB that a receiver of
/// gRPC takes.
const LINES_MAX: usize = 512;

/// Sends lines of the access log to a receiver.
pub(in super::super) struct OtlpLogOutput {
    runtime: Runtime,
    client: OtlpClient,
    endpoint: String,
    resource: Resource,
    dropped: Counter,
    has_failed: bool,
}

impl OtlpLogOutput {
    /// `dropped` counts the lines that the receiver does not accept.
    ///
    /// # Errors
    /// The text says what cannot be started.
    pub(in super::super) fn new(settings: &Telemetry, otlp: &Otlp, dropped: Counter) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("its runtime cannot be created: {error}"))?;
        let client = runtime.block_on(async { OtlpClient::new(otlp) })?;
        let endpoint = otlp.endpoint.clone();
        Ok(Self { runtime, client, endpoint, resource: resource(settings), dropped, has_failed: false })
    }

    fn send(&mut self, lines: &[&[u8]]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let log_records = lines.iter().filter_map(|line| log_record(line, now)).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }];
        let resource = Some(self.resource.clone());
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }],
        };
        match self.runtime.block_on(self.client.send_logs(request)) {
            Ok(rejected) => {
                self.dropped.inc_by(rejected);
                if self.has_failed {
                    tracing::info!(endpoint = self.endpoint, "the access log is exported again");
                }
                self.has_failed = false;
            }
            Err(error) => {
                self.dropped.inc_by(lines.len() as u64);
                if !self.has_failed {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        error,
                        "the access log cannot be exported: lines are lost"
                    );
                }
                self.has_failed = true;
            }
        }
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
