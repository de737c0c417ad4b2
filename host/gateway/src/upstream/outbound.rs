//! Sends the calls of filters to other services, on the connections of the thread that runs the
//! filter.
//!
//! A filter's call must be `Send`, and the connections of a thread are not. So a task of the thread
//! sends the request, and the call waits for the task's answer. Both always run on one thread.
//! Dropping the call ends the task. This module does not know: filters, grants, snapshots.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};

use super::{Cluster, SendOptions, UpstreamClient};
use crate::telemetry::{AttemptRecord, SentRequest, SentRequests, TraceContext, UpstreamRecord, new_span_id};
use witgate_http::body::{Body, ReadError};
use witgate_http::body_budget::Arriving;
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::fields::strip_connection_fields;
use witgate_runtime::outbound::{HttpSender, OutboundCall, SendError, Sending};

/// Finds an upstream by its name.
type FindCluster = Box<dyn Fn(&str) -> Option<Arc<Cluster>>>;

thread_local! {
    static THREAD: RefCell<Option<ThreadUpstreams>> = const { RefCell::new(None) };
}

struct ThreadUpstreams {
    client: Rc<UpstreamClient>,
    find: FindCluster,
}

/// Lets the filters that this thread runs send requests through `client`.
pub fn serve_calls(client: &Rc<UpstreamClient>, find: impl Fn(&str) -> Option<Arc<Cluster>> + 'static) {
    THREAD.set(Some(ThreadUpstreams { client: client.clone(), find: Box::new(find) }));
}

/// Ends what [`serve_calls`] began, when the thread ends.
pub fn end_calls() {
    THREAD.set(None);
}

/// Sends with the connections of the calling thread.
pub struct ThreadSender;

impl HttpSender for ThreadSender {
    fn send(&self, call: OutboundCall) -> Sending {
        match start(call, None) {
            Ok((task, answer)) => Box::pin(async move {
                let _task = task;
                answer.await.map_or_else(|_| Err(ended()), |(answer, _)| answer)
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

/// As [`ThreadSender`], for one exchange that is traced: each request becomes a span.
pub struct TracedSender {
    /// The exchange's place in the trace.
    pub trace: TraceContext,
    /// Receives the requests.
    pub sent: Arc<SentRequests>,
}

impl HttpSender for TracedSender {
    fn send(&self, call: OutboundCall) -> Sending {
        let mut unsent = Unsent::new(&call, self.sent.clone());
        match start(call, Some(self.trace)) {
            Ok((task, answer)) => Box::pin(async move {
                let _task = task;
                let (answer, attempts) = answer.await.unwrap_or_else(|_| (Err(ended()), SmallVec::new()));
                unsent.end(&answer, attempts);
                answer
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

/// A request without a result. If it is dropped so, the span says that it was canceled.
struct Unsent {
    to: Arc<SentRequests>,
    sent: Option<SentRequest>,
    authority: Arc<str>,
    started: Instant,
}

impl Unsent {
    fn new(call: &OutboundCall, to: Arc<SentRequests>) -> Self {
        let sent = SentRequest {
            method: call.request.method().clone(),
            url: format!("{}{}", call.origin, call.request.uri().path()),
            upstream: call.upstream.clone(),
            attempts: SmallVec::new(),
        };
        let authority = format!("{}:{}", call.origin.host, call.origin.port).into();
        Self { to, sent: Some(sent), authority, started: Instant::now() }
    }

    fn end(&mut self, answer: &Answer, attempts: SmallVec<[AttemptRecord; 1]>) {
        let failure = match answer {
            Ok(_) => "ok",
            Err(error) => error.label(),
        };
        self.add(attempts, failure);
    }

    fn add(&mut self, mut attempts: SmallVec<[AttemptRecord; 1]>, result: &'static str) {
        let Some(sent) = self.sent.take() else { return };
        if attempts.is_empty() {
            attempts.push(AttemptRecord {
                endpoint: self.authority.clone(),
                result,
                connect: None,
                duration: self.started.elapsed(),
                started: self.started,
                status: None,
                span_id: new_span_id(),
            });
        }
        self.to.add(SentRequest { attempts, ..sent });
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.add(SmallVec::new(), "canceled");
    }
}

type Answer = Result<http::Response<Bytes>, SendError>;
/// The answer, and the tries.
type Ended = (Answer, SmallVec<[AttemptRecord; 1]>);

fn ended() -> SendError {
    SendError::Unavailable("the gateway ended the call".into())
}

fn start(call: OutboundCall, trace: Option<TraceContext>) -> Result<(EndOnDrop, oneshot::Receiver<Ended>), SendError> {
    THREAD.with_borrow(|thread| {
        let Some(ThreadUpstreams { client, find }) = thread else {
            return Err(SendError::Unavailable("services can be called in a handler only".into()));
        };
        let Some(cluster) = find(&call.upstream) else {
            return Err(SendError::Unavailable("a reload has just removed the upstream".into()));
        };
        let (sender, answer) = oneshot::channel();
        let client = client.clone();
        let task = spawn_local(async move {
            let mut record = UpstreamRecord::default();
            let answer = exchange(&client, &cluster, call, trace, &mut record).await;
            // The receiver is gone if the call has ended meanwhile.
            let _ = sender.send((answer, record.attempts));
        });
        Ok((EndOnDrop(task.abort_handle()), answer))
    })
}

struct EndOnDrop(AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange(
    client: &UpstreamClient,
    cluster: &Cluster,
    call: OutboundCall,
    trace: Option<TraceContext>,
    record: &mut UpstreamRecord,
) -> Answer {
    let failed = |error: Error| {
        tracing::debug!(upstream = &*cluster.name, detail = error.detail, "a call of a filter failed");
        describe(cluster, &error)
    };
    let options = SendOptions {
        client: call.client,
        timeout: Some(call.timeout),
        interim: None,
        budget: call.budget.as_ref(),
        trace,
        record,
    };
    let request = call.request.map(Body::full);
    let (mut head, body) = client.send(cluster, options, request).await.map_err(failed)?.into_parts();
    let arriving = call.budget.as_ref().map_or_else(Arriving::uncounted, |budget| budget.arriving(call.client));
    let body = body.read_counted(call.response_bytes, arriving).await.map_err(|error| match error {
        ReadError::TooLarge => SendError::Limit(format!(
            "the response's body has more than {} bytes (http.response_bytes of the filter)",
            call.response_bytes
        )),
        ReadError::Broken(error) => failed(error),
    })?;
    strip_connection_fields(&mut head.headers);
    head.headers.remove(header::UPGRADE);
    Ok(http::Response::from_parts(head, body))
}

/// What the filter learns. It names no address: a filter may pass the text on to a client.
fn describe(cluster: &Cluster, error: &Error) -> SendError {
    let text = format!("{}: {} ({})", cluster.name, error.kind.public_message(), error.kind.label());
    match error.kind {
        Kind::UpstreamForbidden => SendError::Denied(format!(
            "{}: its host has an address that is not public: if the filter should call it, define an upstream for it",
            cluster.name
        )),
        Kind::UpstreamTimeout | Kind::UpstreamConnectTimeout => SendError::Timeout(text),
        Kind::Saturated => SendError::Limit(format!("the response's body: {}", error.detail)),
        _ => SendError::Unavailable(text),
    }
}
