//! Sends the calls of filters to other services, on the connections of the thread that runs the
//! filter.
//!
//! A filter's call must be `Send`, and the connections of a thread are not. So a task of the thread
//! sends the request, and the call waits for the task's answer. Both always run on one thread.
//! Dropping the call ends the task. This module does not know: filters, grants, snapshots.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};

use super::{Cluster, SendOptions, UpstreamClient};
use crate::telemetry::UpstreamRecord;
use witgate_http::body::{Body, ReadError};
use witgate_http::error::{Error, Kind};
use witgate_http::held::Arriving;
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
        match start(call) {
            Ok((task, answer)) => Box::pin(async move {
                let _task = task;
                answer.await.unwrap_or_else(|_| Err(SendError::Unavailable("the gateway ended the call".into())))
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

type Answer = Result<http::Response<Bytes>, SendError>;

fn start(call: OutboundCall) -> Result<(EndOnDrop, oneshot::Receiver<Answer>), SendError> {
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
            // The receiver is gone if the call has ended meanwhile.
            let _ = sender.send(exchange(&client, &cluster, call).await);
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

async fn exchange(client: &UpstreamClient, cluster: &Cluster, call: OutboundCall) -> Answer {
    let failed = |error: Error| {
        tracing::debug!(upstream = &*cluster.name, detail = error.detail, "a call of a filter failed");
        describe(cluster, &error)
    };
    let mut record = UpstreamRecord::default();
    let options = SendOptions {
        client: call.client,
        timeout: Some(call.timeout),
        interim: None,
        trace: None,
        record: &mut record,
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
