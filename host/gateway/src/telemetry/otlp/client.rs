//! Sends one OTLP message and reads what the receiver says of it.
//!
//! This module does not know: what a message contains.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use opentelemetry_http::HttpClient as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use witgate_config::{Otlp, OtlpProtocol};
use witgate_http::text::bounded;

/// A connection to a receiver. It connects when something is sent, and again after a failure.
pub(super) struct OtlpClient {
    transport: Transport,
    endpoint: String,
    fields: HeaderMap,
    timeout: Duration,
}

enum Transport {
    Http(Box<HyperClient>),
    Grpc(Channel),
}

impl OtlpClient {
    /// Must be called inside of the runtime that sends.
    ///
    /// # Errors
    /// The text says what is wrong with the endpoint.
    pub(super) fn new(otlp: &Otlp) -> Result<Self, String> {
        let fields = otlp.headers.iter().filter_map(|(name, value)| {
            let mut value = HeaderValue::from_str(value.expose()).ok()?;
            value.set_sensitive(true);
            Some((name.clone(), value))
        });
        let transport = match otlp.protocol {
            OtlpProtocol::Http => Transport::Http(Box::new(HyperClient::with_default_connector(otlp.timeout, None))),
            OtlpProtocol::Grpc => {
                let endpoint = Endpoint::from_shared(otlp.endpoint.clone()).map_err(|error| error.to_string())?;
                Transport::Grpc(endpoint.connect_timeout(otlp.timeout).connect_lazy())
            }
        };
        Ok(Self { transport, endpoint: otlp.endpoint.clone(), fields: fields.collect(), timeout: otlp.timeout })
    }

    /// Sends log records. Returns how many of them the receiver rejected.
    ///
    /// # Errors
    /// The text says why nothing was accepted.
    pub(super) async fn send_logs(&self, request: ExportLogsServiceRequest) -> Result<u64, String> {
        let response = match &self.transport {
            Transport::Http(client) => self.post(client, "/v1/logs", request.encode_to_vec()).await?,
            Transport::Grpc(channel) => {
                let mut client = LogsServiceClient::new(channel.clone());
                self.within(client.export(self.with_metadata(request))).await?
            }
        };
        let ExportLogsServiceResponse { partial_success } = response;
        Ok(partial_success.map_or(0, |partial| rejected(partial.rejected_log_records)))
    }

    /// Sends metrics. Returns how many of their data points the receiver rejected.
    ///
    /// # Errors
    /// The text says why nothing was accepted.
    pub(super) async fn send_metrics(&self, request: ExportMetricsServiceRequest) -> Result<u64, String> {
        let response = match &self.transport {
            Transport::Http(client) => self.post(client, "/v1/metrics", request.encode_to_vec()).await?,
            Transport::Grpc(channel) => {
                let mut client = MetricsServiceClient::new(channel.clone());
                self.within(client.export(self.with_metadata(request))).await?
            }
        };
        let ExportMetricsServiceResponse { partial_success } = response;
        Ok(partial_success.map_or(0, |partial| rejected(partial.rejected_data_points)))
    }

    /// Sends an encoded `ExportTraceServiceRequest`. Returns how many of its spans the receiver
    /// rejected. The generated client of gRPC takes types, so the message is decoded for it.
    ///
    /// # Errors
    /// The text says why nothing was accepted.
    pub(super) async fn send_spans(&self, request: Vec<u8>) -> Result<u64, String> {
        let response = match &self.transport {
            Transport::Http(client) => self.post(client, "/v1/traces", request).await?,
            Transport::Grpc(channel) => {
                let request = ExportTraceServiceRequest::decode(request.as_slice()).map_err(bounded)?;
                let mut client = TraceServiceClient::new(channel.clone());
                self.within(client.export(self.with_metadata(request))).await?
            }
        };
        let ExportTraceServiceResponse { partial_success } = response;
        Ok(partial_success.map_or(0, |partial| rejected(partial.rejected_spans)))
    }

    async fn post<R: Message + Default>(
        &self,
        client: &HyperClient,
        path: &str,
        message: Vec<u8>,
    ) -> Result<R, String> {
        let mut request = Request::post(format!("{}{path}", self.endpoint))
            .body(Bytes::from(message))
            .map_err(|error| error.to_string())?;
        *request.headers_mut() = self.fields.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let response = client.send_bytes(request).await.map_err(bounded)?;
        if !response.status().is_success() {
            return Err(format!("the receiver answered {}", response.status()));
        }
        // A receiver that writes another format has accepted the message all the same.
        Ok(R::decode(response.into_body()).unwrap_or_default())
    }

    fn with_metadata<T>(&self, message: T) -> tonic::Request<T> {
        let metadata = MetadataMap::from_headers(self.fields.clone());
        tonic::Request::from_parts(metadata, tonic::Extensions::default(), message)
    }

    async fn within<R>(
        &self,
        call: impl Future<Output = Result<tonic::Response<R>, tonic::Status>>,
    ) -> Result<R, String> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(bounded(status)),
            Err(_) => Err(format!("no response within {:?}", self.timeout)),
        }
    }
}

/// The number is signed in the protocol.
fn rejected(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
