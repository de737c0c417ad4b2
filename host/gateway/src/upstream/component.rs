//! An upstream that is a WebAssembly component: one attempt, in this process.
//!
//! There are no endpoints and no retries: a second attempt would fail in the same way. This module
//! does not know: how a component runs.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::response_timeout::ResponseTimeout;
use super::verdict::AttemptResult;
use crate::telemetry::{AttemptRecord, UpstreamRecord};
use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};
use witgate_runtime::exchange::Upgrade;
use witgate_runtime::http_component::{self, Holder, HttpComponent};

/// The lines of a response's head, as for servers.
const FIELDS_MAX: usize = 200;
/// The time for a whole response if the upstream has none. The configuration always has one.
const TOTAL_TIME: Duration = Duration::from_secs(60);

/// Answers `request`, which began at `started`. `timeout` is the route's.
pub(super) async fn answer(
    cluster: &Cluster,
    component: &Arc<HttpComponent>,
    (started, timeout): (Instant, Option<Duration>),
    holder: Holder,
    record: &mut UpstreamRecord,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, Error> {
    if request.extensions_mut().remove::<Upgrade>().is_some() {
        // A component does not change the protocol: what follows an upgrade is not for it.
        *request.body_mut() = Body::empty();
    }
    let time = timeout.unwrap_or(cluster.settings.timeout);
    let timeout = Rc::new(ResponseTimeout::default());
    let request = request.map(|body| timeout.watch_upload(body));
    let until = started + cluster.settings.total_timeout.unwrap_or(TOTAL_TIME);
    let work = std::pin::pin!(http_component::call(component, request, until.into_std(), holder));
    let result = match timeout.run(started, time, work).await {
        Some(result) => result.and_then(|response| check_head(cluster, response)),
        None => {
            let detail = format!("upstream {}: its component did not answer in time", cluster.name);
            Err(Error::new(Kind::UpstreamTimeout, detail))
        }
    };
    let duration = started.elapsed();
    record.started = Some(started.into_std());
    record.head_after = Some(duration);
    record.attempts.push(AttemptRecord {
        endpoint: component.label.clone(),
        result: AttemptResult::of(result.as_ref().map(http::Response::status)).label(),
        connect: None,
        duration,
        started: started.into_std(),
        status: result.as_ref().ok().map(|response| response.status().as_u16()),
        span_id: 0,
    });
    result
}

/// Refuses a head that is larger than that of a server may be.
fn check_head(cluster: &Cluster, response: http::Response<Body>) -> Result<http::Response<Body>, Error> {
    let (headers, max) = (response.headers(), cluster.settings.response_head_bytes);
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > FIELDS_MAX || bytes > max {
        let detail =
            format!("upstream {}: the head of the response is above {max} bytes or {FIELDS_MAX} lines", cluster.name);
        return Err(Error::new(Kind::UpstreamProtocol, detail));
    }
    Ok(response)
}
