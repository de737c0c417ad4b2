//! Sends copies of some of a route's requests to another upstream.
//!
//! The main exchange never waits for a copy and never fails because of one. A body in memory is
//! shared; a streamed body is copied while it passes, and the copy is sent when the body has ended.
//! Two bounds keep the price small: a larger body is not copied, and neither is a request while too
//! many copies are in flight. The result of each copy is only counted.
//! This module does not know: how a request is sent.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::telemetry::{MirrorLabels, UpstreamRecord, count_known};
use crate::upstream::{Cluster, SendOptions, UpstreamClient};
use witgate_http::body::Body;
use witgate_http::body_budget::Budget;
use witgate_http::error::Error;
use witgate_http::limiter::{Limiter, Permit};
use witgate_runtime::exchange::Upgrade;

/// The longest streamed body that is copied.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Copies of one route that wait for their body or their response.
const IN_FLIGHT_MAX: usize = 128;
/// The longest response to a copy that is read. A longer one closes the connection.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// The mirror of one route.
pub struct Mirror {
    sampler: Sampler,
    cluster: Arc<Cluster>,
    results: Family<MirrorLabels, Counter>,
    route: Arc<str>,
}

impl Mirror {
    /// Copies `percent` of the requests (1 to 100) to `cluster`. `results` counts the copies.
    pub fn new(percent: u8, cluster: Arc<Cluster>, results: Family<MirrorLabels, Counter>, route: Arc<str>) -> Self {
        Self { sampler: Sampler::new(percent), cluster, results, route }
    }

    /// Sends a copy of the request, if it is chosen, and gives the request back.
    pub fn send_copy(
        &self,
        upstream: &Rc<UpstreamClient>,
        client: IpAddr,
        budget: &Arc<Budget>,
        request: http::Request<Body>,
    ) -> http::Request<Body> {
        // The bytes after an upgrade are a conversation, which a copy could not take part in.
        if request.extensions().get::<Upgrade>().is_some() {
            return request;
        }
        let (upstream, cluster, budget) = (upstream.clone(), self.cluster.clone(), budget.clone());
        let (results, route) = (self.results.clone(), self.route.clone());
        let count = move |result| {
            count_known(&results, &MirrorLabels { route, result });
        };
        self.sampler.copy(request, move |copy| match copy {
            RequestCopy::Ready(copy, permit) => {
                tokio::task::spawn_local(async move {
                    count(if send(&upstream, &cluster, (client, &budget), *copy).await {
                        "answered"
                    } else {
                        "failed"
                    });
                    drop(permit);
                });
            }
            RequestCopy::BodyTooLarge => count("body-too-large"),
            RequestCopy::Busy => count("busy"),
        })
    }
}

/// Sends a copy, and returns whether the upstream answered.
async fn send(
    upstream: &UpstreamClient,
    cluster: &Cluster,
    (client, budget): (IpAddr, &Arc<Budget>),
    copy: http::Request<Body>,
) -> bool {
    let mut record = UpstreamRecord::default();
    let budget = Some(budget);
    let options = SendOptions { client, timeout: None, interim: None, budget, trace: None, record: &mut record };
    let Ok(response) = upstream.send(cluster, options, copy).await else { return false };
    // The response is read so that the connection can be used again. How it ends does not matter.
    let reading = response.into_body().read(RESPONSE_BYTES_MAX);
    let _ = tokio::time::timeout(cluster.settings.timeout, reading).await;
    true
}

/// Chooses requests at random and copies them.
#[derive(Debug)]
struct Sampler {
    percent: u8,
    in_flight: Limiter,
}

/// What became of a request's copy.
enum RequestCopy {
    /// The copy is complete. The permit is kept until its response has been read.
    Ready(Box<http::Request<Body>>, Permit),
    /// The body is longer than the bound.
    BodyTooLarge,
    /// Too many copies are in flight.
    Busy,
}

impl Sampler {
    fn new(percent: u8) -> Self {
        Self { percent, in_flight: Limiter::default() }
    }

    /// Gives the request back for the main exchange. If it is chosen, `on_copy` is called once: at
    /// once, or when the body has passed. It is never called if the body ends early.
    fn copy(&self, request: http::Request<Body>, on_copy: impl FnOnce(RequestCopy) + 'static) -> http::Request<Body> {
        if self.percent < 100 && fastrand::u8(0..100) >= self.percent {
            return request;
        }
        let Ok(permit) = self.in_flight.try_acquire(IN_FLIGHT_MAX) else {
            on_copy(RequestCopy::Busy);
            return request;
        };
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        let ready = |body: Body| RequestCopy::Ready(Box::new(head.map(|()| body)), permit);
        if let Some(body) = request.body().try_clone() {
            on_copy(ready(body));
            return request;
        }
        if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
            on_copy(RequestCopy::BodyTooLarge);
            return request;
        }
        let on_end = Box::new(move |bytes: Option<Bytes>| {
            on_copy(bytes.map_or(RequestCopy::BodyTooLarge, |bytes| ready(Body::full(bytes))));
        });
        let mut tee = Tee { copy: BytesMut::new(), on_end: Some(on_end) };
        request.map(|body| {
            body.map_poll(move |source, context| {
                let frame = ready!(source.as_mut().poll_frame(context));
                tee.observe(frame.as_ref(), source.is_end_stream());
                Poll::Ready(frame)
            })
        })
    }
}

/// A copy of a body that passes.
struct Tee {
    copy: BytesMut,
    /// Takes the whole copy, or None if the body is longer than the bound.
    on_end: Option<Box<dyn FnOnce(Option<Bytes>)>>,
}

impl Tee {
    fn observe(&mut self, frame: Option<&Result<Frame<Bytes>, Error>>, is_last: bool) {
        match frame {
            None => self.end(true),
            Some(Err(_)) => self.on_end = None,
            Some(Ok(frame)) => {
                let data = frame.data_ref().filter(|_| self.on_end.is_some()).cloned().unwrap_or_default();
                if self.copy.len() + data.len() > BODY_BYTES_MAX {
                    self.end(false);
                } else {
                    self.copy.extend_from_slice(&data);
                }
                // A reader that knows the length does not poll again after the last byte.
                if is_last {
                    self.end(true);
                }
            }
        }
    }

    fn end(&mut self, is_whole: bool) {
        let copy = std::mem::take(&mut self.copy);
        if let Some(on_end) = self.on_end.take() {
            on_end(is_whole.then(|| copy.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Waker};
    use witgate_http::error::Kind;

    struct Script(VecDeque<Result<Frame<Bytes>, Error>>);

    impl witgate_http::body::Source for Script {}

    impl http_body::Body for Script {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    /// What `on_copy` gets for a request with this body, after the main exchange has read `reads`
    /// frames.
    fn copied(sampler: &Sampler, parts: Vec<Result<usize, ()>>, reads: usize) -> Vec<String> {
        let frame = |part: Result<usize, ()>| match part {
            Ok(length) => Ok(Frame::data(Bytes::from(vec![b'x'; length]))),
            Err(()) => Err(Error::new(Kind::ClientGone, "")),
        };
        let body = Body::stream(Box::pin(Script(parts.into_iter().map(frame).collect())));
        let heard = Rc::new(RefCell::new(vec![]));
        let tell = heard.clone();
        let mut request = sampler.copy(http::Request::new(body), move |copied| {
            tell.borrow_mut().push(match copied {
                RequestCopy::Ready(request, _) => {
                    format!("{} bytes", request.body().buffered().unwrap_or_default().len())
                }
                RequestCopy::BodyTooLarge => "too large".into(),
                RequestCopy::Busy => "busy".into(),
            });
        });
        for _ in 0..reads {
            let _ = Pin::new(request.body_mut()).poll_frame(&mut Context::from_waker(Waker::noop()));
        }
        heard.take()
    }

    #[test]
    fn a_copy_leaves_when_its_body_has_passed() {
        let sampler = Sampler::new(100);
        assert_eq!(copied(&sampler, vec![Ok(3), Ok(4)], 2), [""; 0]);
        assert_eq!(copied(&sampler, vec![Ok(3), Ok(4)], 3), ["7 bytes"]);
        assert_eq!(copied(&sampler, vec![Ok(3), Err(())], 3), [""; 0], "a body that ends early is not copied");
        assert_eq!(copied(&sampler, vec![Ok(BODY_BYTES_MAX), Ok(1)], 3), ["too large"]);
        assert_eq!(sampler.in_flight.in_use(), 0, "permits are returned");
    }

    #[test]
    fn a_body_in_memory_is_copied_at_once_and_copies_are_bounded() {
        let sampler = Sampler::new(100);
        let kept = Rc::new(RefCell::new(vec![]));
        for _ in 0..=IN_FLIGHT_MAX {
            let keep = kept.clone();
            let request = http::Request::new(Body::full(Bytes::from_static(b"abc")));
            sampler.copy(request, move |copied| keep.borrow_mut().push(copied));
        }
        assert!(matches!(kept.borrow()[0], RequestCopy::Ready(..)));
        assert!(matches!(kept.borrow()[IN_FLIGHT_MAX], RequestCopy::Busy));
        kept.borrow_mut().clear();
        assert_eq!(sampler.in_flight.in_use(), 0);
    }

    #[test]
    fn about_the_configured_share_is_copied() {
        let sampler = Sampler::new(10);
        let count = Rc::new(RefCell::new(0));
        for _ in 0..10_000 {
            let count = count.clone();
            sampler.copy(http::Request::new(Body::empty()), move |_| *count.borrow_mut() += 1);
        }
        assert!((700..=1300).contains(&*count.borrow()), "{count:?}");
    }
}
