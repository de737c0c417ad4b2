//! The body of a request on its way to the guest.
//!
//! A body of the gateway belongs to one thread, and the guest wants one that any thread could poll.
//! So the frames of a request pass through a channel that holds one of them. A future of the same
//! task reads the client's body when there is room. This module does not know: when a guest runs.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::mpsc;
use wasmtime_wasi_http::{Error as WasiError, WasiBody};

use witgate_http::body::Body;
use witgate_http::error::Error;

/// Passes the frames of a request's body on. The error is that of the client's body.
pub(super) type Feed = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// The body as the guest reads it, and what passes its frames on if it is a stream.
pub(super) fn to_guest(body: Body) -> (WasiBody, Option<Feed>) {
    if let Some(bytes) = body.buffered() {
        // The body itself counts what is read of it, so it is read and not only looked at.
        let length = bytes.len();
        let bytes = read_now(body).unwrap_or_default();
        debug_assert_eq!(bytes.len(), length);
        return (Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync(), None);
    }
    let (sender, receiver) = mpsc::channel(1);
    (FedBody(receiver).boxed_unsync(), Some(Box::pin(feed(body, sender))))
}

/// Reads a body in memory.
fn read_now(mut body: Body) -> Option<Bytes> {
    let mut context = Context::from_waker(std::task::Waker::noop());
    match Pin::new(&mut body).poll_frame(&mut context) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}

async fn feed(mut body: Body, sender: mpsc::Sender<Result<Frame<Bytes>, WasiError>>) -> Result<(), Error> {
    // Without a receiver the guest reads no more.
    while let Ok(place) = sender.reserve().await {
        match body.frame().await {
            None => return Ok(()),
            Some(Ok(frame)) => place.send(Ok(frame)),
            Some(Err(error)) => {
                place.send(Err(WasiError::ConnectionTerminated));
                return Err(error);
            }
        }
    }
    Ok(())
}

struct FedBody(mpsc::Receiver<Result<Frame<Bytes>, WasiError>>);

impl http_body::Body for FedBody {
    type Data = Bytes;
    type Error = WasiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiError>>> {
        self.0.poll_recv(context)
    }
}
