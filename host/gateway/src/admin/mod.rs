//! The admin listener: metrics, health, readiness and the lists of filters and upstreams, on loopback, from a thread that serves no traffic.
//!
//! So a scrape is answered however busy the workers are, and a slow scraper slows down nobody. Plain HTTP/1.1, GET only: nothing here changes anything. Must not know: how
//! the numbers are made.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::control::reload::labels;
use crate::control::takeover::over;
use crate::pipeline::snapshot::Shared;
use crate::upstream::{Cluster, WeightedEndpoint};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 64;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the admin listener until the gateway ends or another process took over: then that one answers.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, mut taken: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener cannot be used");
            return;
        }
    };
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = over(&mut taken) => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener: accept failed; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (shared, mut taken) = (shared.clone(), taken.clone());
        tokio::task::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&shared, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = over(&mut taken) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    // Connections that are open finish.
    let _ = places.acquire_many(CONNECTIONS_MAX as u32).await;
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            shared.metrics.instances.set(shared.engine.instances() as i64);
            shared.metrics.in_flight.set(shared.in_flight.load(Ordering::Relaxed) as i64);
            shared.metrics.connections.set(shared.connections.load(Ordering::Relaxed) as i64);
            publish_kept(shared);
            publish_endpoints(shared);
            text(StatusCode::OK, OPENMETRICS, shared.metrics.encode())
        }
        "/healthz" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" if *shared.draining.borrow() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n".to_owned())
        }
        "/readyz" => text(StatusCode::OK, "text/plain", "ready\n".to_owned()),
        "/filters" => text(StatusCode::OK, "application/json", filters(shared)),
        "/upstreams" => text(StatusCode::OK, "application/json", upstreams(shared)),
        "/" => text(StatusCode::OK, "text/plain", "/metrics\n/healthz\n/readyz\n/filters\n/upstreams\n".to_owned()),
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain",
            "there is /metrics, /healthz, /readyz, /filters and /upstreams\n".to_owned(),
        ),
    }
}

fn filters(shared: &Shared) -> String {
    let snapshot = shared.snapshot.load();
    let mut list: Vec<_> = snapshot
        .filters
        .iter()
        .map(|(name, filter)| {
            serde_json::json!({
                "name": name,
                "version": &*filter.version,
                "digest": filter.info.digest,
                "size": filter.info.size,
                "request_phase": filter.has_request_phase(),
                "response_phase": filter.has_response_phase(),
                "reuse": filter.settings.reuse,
                "instances_kept": filter.idle_instances(),
                "state": "serving",
            })
        })
        .collect();
    list.sort_by_key(|filter| filter["name"].to_string());
    format!("{:#}\n", serde_json::Value::from(list))
}

/// Of the filters that keep instances now.
fn publish_kept(shared: &Shared) {
    let gauge = &shared.metrics.instances_kept;
    gauge.clear();
    for (name, filter) in shared.snapshot.load().filters.iter().filter(|(_, filter)| filter.settings.reuse > 1) {
        gauge.get_or_create(&labels(name, filter)).set(filter.idle_instances() as i64);
    }
}

/// The gauges of the endpoints that there are now, and of no others.
fn publish_endpoints(shared: &Shared) {
    let metrics = &shared.metrics;
    let gauges = [
        &metrics.endpoint_healthy,
        &metrics.endpoint_ejected,
        &metrics.endpoint_in_flight,
        &metrics.endpoint_connections,
        &metrics.endpoint_pending,
    ];
    for gauge in gauges {
        gauge.clear();
    }
    for weighted in shared.snapshot.load().upstreams.values().flat_map(|cluster| &cluster.endpoints) {
        let (labels, status) = (weighted.endpoint.labels(), weighted.endpoint.status());
        let values = [
            i64::from(status.healthy != Some(false)),
            i64::from(status.ejected_for.is_some()),
            status.in_flight as i64,
            status.connections as i64,
            status.pending as i64,
        ];
        for (gauge, value) in gauges.into_iter().zip(values) {
            gauge.get_or_create(&labels).set(value);
        }
    }
}

fn upstreams(shared: &Shared) -> String {
    let snapshot = shared.snapshot.load();
    let endpoint = |weighted: &WeightedEndpoint| {
        let status = weighted.endpoint.status();
        serde_json::json!({
            "endpoint": &*weighted.endpoint.label,
            "weight": weighted.weight,
            "healthy": status.healthy,
            "ejected_for_seconds": status.ejected_for.map(|time| time.as_secs_f64()),
            "failures": status.failures,
            "in_flight": status.in_flight,
            "connections": status.connections,
            "pending": status.pending,
        })
    };
    let upstream = |(name, cluster): (&String, &Arc<Cluster>)| {
        let endpoints: Vec<_> = cluster.endpoints.iter().map(endpoint).collect();
        serde_json::json!({ "name": name, "endpoints": endpoints })
    };
    let list: Vec<_> = snapshot.upstreams.iter().map(upstream).collect();
    format!("{:#}\n", serde_json::Value::from(list))
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
