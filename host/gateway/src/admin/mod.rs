//! The admin listener: metrics, health, readiness, lists of filters, upstreams and failed
//! exchanges, and the releases of filters with their commands and their history.
//!
//! It runs on a thread of its own that serves no traffic, so it answers while the workers are busy
//! and a slow client delays no other one. It speaks plain HTTP/1.1. Each resource has a handler in
//! a file of its own; [`router`] has their paths, and `access` decides who may give commands.
//!
//! This module does not know: how the numbers are measured.

mod access;
mod call;
mod certificates;
mod config;
mod console;
mod drain;
mod exchanges;
mod filters;
mod health;
mod history;
mod metrics;
mod openapi;
mod process;
mod query;
mod releases;
mod reply;
mod router;
mod routes;
mod tap;
mod upstreams;

pub(crate) use self::metrics::openmetrics;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Either;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use self::access::Caller;
use crate::control::takeover::wait_taken_over;
use crate::pipeline::snapshot::Shared;

/// The timeout of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 64;
/// The delay after a failed accept.
const ACCEPT_DELAY: Duration = Duration::from_millis(100);

/// Serves the admin listener until the gateway ends, or until a takeover: then the new process
/// answers, and open connections finish here.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, mut taken_over: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener cannot be used");
            return;
        }
    };
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = wait_taken_over(&mut taken_over) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (shared, taken_over) = (shared.clone(), taken_over.clone());
                tokio::task::spawn(async move {
                    serve_connection(shared, stream, peer, taken_over).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept a connection: trying again");
                tokio::time::sleep(ACCEPT_DELAY).await;
            }
        }
    }
    drop(listener);
    // An error is impossible: nothing closes the semaphore.
    let _ = permits.acquire_many(CONNECTIONS_MAX as u32).await;
}

async fn serve_connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    mut taken_over: watch::Receiver<bool>,
) {
    let configured = shared.snapshot.load().config.admin;
    let caller = Caller { peer, is_loopback_listener: configured.is_some_and(|address| address.ip().is_loopback()) };
    let service = service_fn(move |request| {
        let response = if tap::is_tap(&request) {
            tap::respond(&shared, &caller, &request)
        } else {
            router::respond(&shared, &caller, &request).map(Either::Left)
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = wait_taken_over(&mut taken_over) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection failed");
    }
}
