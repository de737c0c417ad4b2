//! A receiver of OTLP, over HTTP and over gRPC, that keeps spans, metrics and log records in
//! memory.
//!
//! This module does not know: the gateway, what a test expects.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bytes::{Buf as _, Bytes, BytesMut};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use prost::Message as _;

/// Serves until the process ends.
pub struct OtlpReceiver {
    /// The address of the receiver.
    pub address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

/// What arrived so far.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The spans in the order in which they arrived.
    pub spans: Vec<Span>,
    /// The log records in the order in which they arrived.
    pub logs: Vec<LogRecord>,
    /// The data points of the last export of metrics.
    pub points: Vec<Point>,
    /// The value of `authorization` of the last export.
    pub authorization: Option<String>,
}

/// A span, with ids as hexadecimal digits and values as text.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: i32,
    pub nanoseconds: (u64, u64),
    pub is_error: bool,
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

/// A log record, with ids as hexadecimal digits and values as text.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct LogRecord {
    pub body: String,
    pub severity: String,
    pub nanoseconds: u64,
    pub trace: String,
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

/// A data point of a metric. The value of a histogram is its count.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Point {
    pub name: String,
    pub unit: String,
    pub value: f64,
    pub attributes: BTreeMap<String, String>,
    /// Traces that the exemplars of a histogram name, as hexadecimal digits.
    pub exemplars: Vec<String>,
}

impl OtlpReceiver {
    /// Starts a receiver of OTLP over HTTP.
    pub fn http() -> Result<Self> {
        Self::start(|stream, received| {
            // The client closes the connection.
            let _ = serve_http(stream, received);
        })
    }

    /// Starts a receiver of OTLP over gRPC.
    pub fn grpc() -> Result<Self> {
        Self::start(|stream, received| {
            let _ = serve_grpc(stream, received);
        })
    }

    fn start(serve: fn(TcpStream, &Mutex<Received>)) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, received) = (listener.local_addr()?, Arc::<Mutex<Received>>::default());
        let own = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::io::Result::ok) {
                let own = own.clone();
                std::thread::spawn(move || serve(stream, &own));
            }
        });
        Ok(Self { address, received })
    }

    /// What arrived so far.
    pub fn received(&self) -> Received {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve_http(stream: TcpStream, received: &Mutex<Received>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut authorization, mut line, mut path) = (0, None, String::new(), String::new());
        while stream.read_line(&mut line)? > 2 {
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "authorization" => authorization = Some(value.trim().to_owned()),
                _ => {}
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        keep(received, &path, Bytes::from(body), authorization)?;
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    }
}

fn serve_grpc(stream: TcpStream, received: &Mutex<Received>) -> Result<()> {
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = h2::server::handshake(tokio::net::TcpStream::from_std(stream)?).await?;
        // The requests of one client follow each other, so the connection is polled beside each.
        while let Some(accepted) = connection.accept().await {
            let (request, mut respond) = accepted?;
            let path = request.uri().path().to_owned();
            let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            let authorization = authorization.map(str::to_owned);
            let mut body = request.into_body();
            let work = async {
                let mut message = BytesMut::new();
                while let Some(data) = body.data().await {
                    let data = data?;
                    body.flow_control().release_capacity(data.len())?;
                    message.extend_from_slice(&data);
                }
                // The flag of compression and the length precede the message.
                message.advance(5);
                keep(received, &path, message.freeze(), authorization)?;
                let head = http::Response::builder().header("content-type", "application/grpc").body(())?;
                let mut stream = respond.send_response(head, false)?;
                stream.send_data(Bytes::from_static(&[0; 5]), false)?;
                let status = http::HeaderValue::from_static("0");
                stream.send_trailers([(http::HeaderName::from_static("grpc-status"), status)].into_iter().collect())?;
                anyhow::Ok(())
            };
            tokio::select! {
                done = work => done?,
                _ = std::future::poll_fn(|context| connection.poll_closed(context)) => return Ok(()),
            }
        }
        Ok(())
    })
}

/// `path` is that of HTTP, or names the service of gRPC.
fn keep(received: &Mutex<Received>, path: &str, body: Bytes, authorization: Option<String>) -> Result<()> {
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    received.authorization = authorization;
    if path == "/v1/traces" || path.contains("TraceService") {
        keep_spans(&mut received, ExportTraceServiceRequest::decode(body).context("not an export of traces")?);
    } else if path == "/v1/logs" || path.contains("LogsService") {
        keep_logs(&mut received, ExportLogsServiceRequest::decode(body).context("not an export of logs")?);
    } else {
        let request = ExportMetricsServiceRequest::decode(body).context("not an export of metrics")?;
        let scopes = request.resource_metrics.into_iter().flat_map(|of_resource| of_resource.scope_metrics);
        received.points = scopes.flat_map(|scope| scope.metrics).flat_map(points).collect();
    }
    Ok(())
}

fn keep_spans(received: &mut Received, request: ExportTraceServiceRequest) {
    for of_resource in request.resource_spans {
        let resource = attributes(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            received.spans.push(Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind,
                nanoseconds: (span.start_time_unix_nano, span.end_time_unix_nano),
                is_error: span.status.is_some_and(|status| status.code == 2),
                attributes: attributes(span.attributes),
                resource: resource.clone(),
            });
        }
    }
}

fn keep_logs(received: &mut Received, request: ExportLogsServiceRequest) {
    for of_resource in request.resource_logs {
        let resource = attributes(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for record in of_resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            received.logs.push(LogRecord {
                body: text(record.body),
                severity: record.severity_text,
                nanoseconds: record.time_unix_nano,
                trace: hex(&record.trace_id),
                attributes: attributes(record.attributes),
                resource: resource.clone(),
            });
        }
    }
}

fn points(metric: Metric) -> Vec<Point> {
    let Metric { name, unit, data, .. } = metric;
    let point = |list: Vec<KeyValue>, value, exemplars| Point {
        name: name.clone(),
        unit: unit.clone(),
        value,
        attributes: attributes(list),
        exemplars,
    };
    let numbers = match data {
        Some(metric::Data::Sum(sum)) => sum.data_points,
        Some(metric::Data::Gauge(gauge)) => gauge.data_points,
        Some(metric::Data::Histogram(histogram)) => {
            let of = |one: opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint| {
                let traces = one.exemplars.iter().map(|exemplar| hex(&exemplar.trace_id)).collect();
                point(one.attributes, one.count as f64, traces)
            };
            return histogram.data_points.into_iter().map(of).collect();
        }
        _ => vec![],
    };
    let of = |one: opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        let value = match one.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None => f64::NAN,
        };
        point(one.attributes, value, vec![])
    };
    numbers.into_iter().map(of).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, String> {
    list.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
