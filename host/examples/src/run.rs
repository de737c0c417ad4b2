//! Sends the request of an example through a filter, and records what happens.
//!
//! The order is that of the gateway for a route with this one filter: request phase, upstream,
//! response phase. This module does not know: what is expected.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value as Json;
use witgate_manifest::{Action, Example, ExampleRequest, ExampleResponse, FieldLines};
use witgate_runtime::call::{self, CallResult};
use witgate_runtime::engine::Engine;
use witgate_runtime::exchange::{Client, Exchange, ExchangeNote, LogLine, Request, Response, TlsInfo};
use witgate_runtime::filter::{Filter, Phase};
use witgate_runtime::load_error::LoadError;
use witgate_runtime::profile::{Sample, sample};

use crate::services::Services;

/// The client of an example that names none (RFC 5737).
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A filter with services for examples.
pub struct Runner {
    filter: Arc<Filter>,
    services: Services,
}

/// What happened in an example.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How the exchange went on.
    pub action: Action,
    /// The kind of failure and its detail, if a call failed.
    pub failure: Option<(String, String)>,
    /// The request after the request phase: what the upstream gets if the action is `proceed` or
    /// `replace`.
    pub request: SeenRequest,
    /// What the client gets. `None` if the filter failed.
    pub response: Option<SeenResponse>,
    /// The notes after the exchange.
    pub notes: BTreeMap<String, String>,
    /// Lines of the log, such as `info: hello`.
    pub log: Vec<String>,
    /// The key-value store after the exchange.
    pub keyvalue: BTreeMap<String, String>,
    /// The time of the calls of the last exchange.
    pub took: Duration,
    /// The largest memory of its instances, in bytes.
    pub memory_bytes: usize,
}

/// A request as the upstream gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenRequest {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// All fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A response as the client gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenResponse {
    /// The status.
    pub status: StatusCode,
    /// All fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The calls of one exchange.
#[derive(Default)]
struct Calls {
    took: Duration,
    memory_bytes: usize,
    log: Vec<String>,
    failure: Option<(String, String)>,
}

impl Runner {
    /// A runner of a filter that the gateway loaded: the same code under the same limits.
    ///
    /// # Errors
    ///
    /// The filter cannot be linked.
    pub fn new(engine: &Engine, filter: &Filter) -> Result<Self, LoadError> {
        let services = Services::new();
        let filter = Arc::new(filter.with_services(engine, services.store.clone(), services.limiter.clone())?);
        Ok(Self { filter, services })
    }

    /// The filter.
    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    /// Runs an example in a state of its own.
    ///
    /// # Errors
    ///
    /// A value of the example is not possible in HTTP, or its configuration does not fit the
    /// filter's manifest.
    pub async fn run(&self, example: &Example) -> Result<Outcome, String> {
        let config = Arc::new(self.config(example)?);
        self.services.reset(&example.keyvalue).map_err(|error| format!("keyvalue: {error}"))?;
        let mut outcome = self.exchange(example, &config).await?;
        for _ in 1..example.repeat {
            outcome = self.exchange(example, &config).await?;
        }
        Ok(outcome)
    }

    /// Sends the request of an example once for each phase of the filter, and ends the phase's call
    /// at the tick number `ticks`. A call that ends before it gives no sample.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`], or a call failed.
    pub async fn sample(&self, example: &Example, ticks: u64) -> Result<Vec<Sample>, String> {
        let config = Arc::new(self.config(example)?);
        self.services.reset(&example.keyvalue).map_err(|error| format!("keyvalue: {error}"))?;
        let (mut exchange, body) = exchange(example).map_err(|problem| format!("request: {problem}"))?;
        let mut samples = vec![];
        if self.filter.has_request_phase() {
            exchange.request.body = self.filter.request_body_limit().map(|_| body.clone());
            let sampled = sample(&self.filter, Phase::Request, exchange.copy(), &config, ticks).await?;
            samples.extend(sampled);
        }
        if self.filter.has_response_phase() {
            let (mut exchange, action) = self.request_phase(exchange, &body, &config, &mut Calls::default()).await;
            if action != Action::Proceed {
                return Ok(samples);
            }
            let answer = answer(&example.upstream.clone().unwrap_or_default())?;
            let body = self.filter.response_body_limit().map(|_| answer.body);
            exchange.response = Some(Response { status: answer.status, headers: answer.headers, local: false, body });
            let sampled = sample(&self.filter, Phase::Response, exchange, &config, ticks).await?;
            samples.extend(sampled);
        }
        Ok(samples)
    }

    /// The configuration of an example, with the defaults of the manifest.
    ///
    /// # Errors
    ///
    /// A value does not fit the manifest's schemas.
    pub fn config(&self, example: &Example) -> Result<BTreeMap<String, String>, String> {
        let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut config = example.config.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        if let Some(manifest) = &self.filter.info.manifest {
            if let Some(problem) = manifest.config_problems(&config).into_iter().next() {
                return Err(format!("config.{problem}"));
            }
            manifest.add_defaults(&mut config);
        }
        Ok(config)
    }

    async fn exchange(&self, example: &Example, config: &Arc<BTreeMap<String, String>>) -> Result<Outcome, String> {
        // Short calls never wait: without this, a time limit of the caller would not be checked.
        tokio::task::yield_now().await;
        let (exchange, body) = exchange(example).map_err(|problem| format!("request: {problem}"))?;
        let upstream = example.upstream.clone().unwrap_or_default();
        let answer = answer(&upstream).map_err(|problem| format!("upstream: {problem}"))?;
        let mut calls = Calls::default();
        let (mut exchange, action) = self.request_phase(exchange, &body, config, &mut calls).await;
        let request = SeenRequest {
            method: exchange.request.method.clone(),
            path: exchange.request.target.as_str().to_owned(),
            headers: exchange.request.headers.clone(),
            body: exchange.request.body.clone().unwrap_or(body),
        };
        let (exchange, action) = match action {
            Action::Proceed => {
                exchange.response = Some(Response {
                    status: answer.status,
                    headers: answer.headers,
                    local: false,
                    body: self.filter.response_body_limit().map(|_| answer.body.clone()),
                });
                self.response_phase(exchange, &answer.body, config, &mut calls).await
            }
            other => (exchange, other),
        };
        let Exchange { response, notes, .. } = *exchange;
        let response = response.filter(|_| action != Action::Fail).map(|response| SeenResponse {
            status: response.status,
            headers: response.headers,
            body: response.body.unwrap_or(answer.body),
        });
        Ok(Outcome {
            action,
            failure: calls.failure,
            request,
            response,
            notes: notes.into_iter().map(|note| (note.name, note.value)).collect(),
            log: calls.log,
            keyvalue: self.services.entries(),
            took: calls.took,
            memory_bytes: calls.memory_bytes,
        })
    }

    async fn request_phase(
        &self,
        mut exchange: Box<Exchange>,
        body: &Bytes,
        config: &Arc<BTreeMap<String, String>>,
        calls: &mut Calls,
    ) -> (Box<Exchange>, Action) {
        if !self.filter.has_request_phase() {
            return (exchange, Action::Proceed);
        }
        if let Some(limit) = self.filter.request_body_limit() {
            if body.len() > limit {
                calls.failure = Some(too_large("request", body, limit));
                return (exchange, Action::Fail);
            }
            exchange.request.body = Some(body.clone());
        }
        self.call(Phase::Request, exchange, config, calls).await
    }

    async fn response_phase(
        &self,
        exchange: Box<Exchange>,
        body: &Bytes,
        config: &Arc<BTreeMap<String, String>>,
        calls: &mut Calls,
    ) -> (Box<Exchange>, Action) {
        if !self.filter.has_response_phase() {
            return (exchange, Action::Proceed);
        }
        if let Some(limit) = self.filter.response_body_limit().filter(|limit| body.len() > *limit) {
            calls.failure = Some(too_large("response", body, limit));
            return (exchange, Action::Fail);
        }
        self.call(Phase::Response, exchange, config, calls).await
    }

    async fn call(
        &self,
        phase: Phase,
        mut exchange: Box<Exchange>,
        config: &Arc<BTreeMap<String, String>>,
        calls: &mut Calls,
    ) -> (Box<Exchange>, Action) {
        exchange.captured_log = Some(vec![]);
        let called = call::run(&self.filter, phase, exchange, config, self.filter.settings.timeout).await;
        let CallResult { mut exchange, outcome, took, stats, .. } = called;
        calls.took += took;
        calls.memory_bytes = calls.memory_bytes.max(stats.memory_bytes);
        let lines = exchange.captured_log.take().unwrap_or_default();
        calls.log.extend(lines.into_iter().map(|LogLine { level, text }| format!("{level}: {text}")));
        match outcome {
            Ok(call::Action::Proceed) => (exchange, Action::Proceed),
            Ok(call::Action::Answer(reply)) => {
                exchange.answer(reply);
                (exchange, if phase == Phase::Request { Action::Respond } else { Action::Replace })
            }
            Err(failure) => {
                calls.failure = Some((failure.kind.label().to_owned(), failure.detail));
                (exchange, Action::Fail)
            }
        }
    }
}

fn too_large(what: &str, body: &Bytes, limit: usize) -> (String, String) {
    let detail = format!("the {what} body has {} bytes, and the filter takes at most {limit}", body.len());
    ("body-too-large".into(), detail)
}

/// The exchange of an example before the request phase, and the body of its request.
fn exchange(example: &Example) -> Result<(Box<Exchange>, Bytes), String> {
    let ExampleRequest { method, path, headers, body, json, base64 } = &example.request;
    let (body, is_json) = body_of(body, json, base64)?;
    let mut headers = fields(headers)?;
    if is_json && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if !headers.contains_key(HOST) {
        headers.insert(HOST, HeaderValue::from_static("example.com"));
    }
    let method = method.as_deref().unwrap_or(if body.is_empty() { "GET" } else { "POST" });
    let path = path.as_deref().unwrap_or("/");
    let client = example.client.clone().unwrap_or_default();
    let address = SocketAddr::from((client.ip.unwrap_or(CLIENT), 0));
    let tls = client.tls.then(|| {
        let (server_name, alpn, names) = (None, Some("h2"), Arc::from([]));
        Arc::new(TlsInfo { version: "TLSv1.3", server_name, alpn, resumed: false, peer: None, names })
    });
    let note = |(name, value): (&String, &String)| ExchangeNote {
        name: name.clone(),
        value: value.clone(),
        owner: "earlier-filter".into(),
    };
    let request = Request {
        method: method.parse().map_err(|_| format!("{method:?} is not a method"))?,
        tls: client.tls,
        target: path.parse().map_err(|_| format!("{path:?} is not a path: it begins with / and has no spaces"))?,
        headers,
        body: None,
        upgrade: None,
    };
    let exchange = Exchange {
        id: 1,
        client: Arc::new(Client { tls, ..Client::new(address) }),
        route: "example".into(),
        request,
        response: None,
        notes: example.notes.iter().map(note).collect(),
        budget: None,
        edited_fields: None,
        passed: witgate_runtime::exchange::Passed::default(),
        captured_log: None,
        sender: None,
    };
    Ok((Box::new(exchange), body))
}

/// The upstream's response.
fn answer(upstream: &ExampleResponse) -> Result<SeenResponse, String> {
    let (body, is_json) = body_of(&upstream.body, &upstream.json, &upstream.base64)?;
    let mut headers = fields(&upstream.headers)?;
    if is_json && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let status = upstream.status.unwrap_or(200);
    let checked = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 200);
    let status = checked.ok_or_else(|| format!("{status} is not a status: write a number from 200 to 599"))?;
    Ok(SeenResponse { status, headers, body })
}

/// The bytes of a body, and whether it is given as JSON.
fn body_of(body: &Option<String>, json: &Option<Json>, base64: &Option<String>) -> Result<(Bytes, bool), String> {
    Ok(match (body, json, base64) {
        (Some(text), _, _) => (Bytes::from(text.clone()), false),
        (_, Some(json), _) => (Bytes::from(json.to_string()), true),
        (_, _, Some(text)) => {
            let bytes = BASE64_STANDARD.decode(text.trim()).map_err(|error| format!("base64: {error}"))?;
            (Bytes::from(bytes), false)
        }
        _ => (Bytes::new(), false),
    })
}

fn fields(headers: &BTreeMap<String, FieldLines>) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, lines) in headers {
        let checked = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a field name"))?;
        for line in lines.lines() {
            let value = HeaderValue::from_bytes(line.as_bytes());
            map.append(checked.clone(), value.map_err(|_| format!("{name}: the value has a control character"))?);
        }
    }
    Ok(map)
}
