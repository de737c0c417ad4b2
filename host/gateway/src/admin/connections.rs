//! The connections of the admin listener: over TCP, with or without TLS, and over a UNIX socket.
//!
//! Their number and the time of a handshake and of a request's head are bounded. This module does
//! not know: resources, who may use them.

use std::convert::Infallible;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http_body_util::Either;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use super::access::{Caller, Via};
use super::open_connections::{OpenConnections, Progress, Watched};
use super::{router, tap};
use crate::control::takeover::wait_taken_over;
use crate::net::Stream;
use crate::net::tls::accept_tls;
use crate::pipeline::snapshot::Shared;
use crate::tls::ServerTls;

/// The timeout of a TLS handshake and of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The delay after a failed accept.
const ACCEPT_DELAY: Duration = Duration::from_millis(100);

/// Where the admin listener accepts connections.
#[derive(Default)]
pub struct AdminListeners {
    /// The address.
    pub tcp: Option<TcpListener>,
    /// TLS of the address.
    pub tls: Option<Arc<ServerTls>>,
    /// The UNIX socket.
    pub unix: Option<UnixListener>,
}

/// A socket that accepts connections.
enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// Serves until the gateway ends, or until a takeover: then the new process answers, and open
/// connections finish here.
pub async fn serve(shared: Arc<Shared>, listeners: AdminListeners, taken_over: watch::Receiver<bool>) {
    let AdminListeners { tcp, tls, unix } = listeners;
    let open = Arc::new(Mutex::new(OpenConnections::new()));
    let tcp = tcp.map(|tcp| tokio::net::TcpListener::from_std(tcp).map(Listener::Tcp));
    let unix = unix.map(|unix| tokio::net::UnixListener::from_std(unix).map(Listener::Unix));
    let serve_one = |listener: Option<std::io::Result<Listener>>| {
        let (shared, tls, open, taken_over) = (shared.clone(), tls.clone(), open.clone(), taken_over.clone());
        async move {
            match listener {
                None => {}
                Some(Ok(listener)) => accept(shared, listener, tls, open, taken_over).await,
                Some(Err(error)) => tracing::error!(%error, "the admin listener cannot be used"),
            }
        }
    };
    tokio::join!(serve_one(tcp), serve_one(unix));
    let mut tasks = open.lock().unwrap_or_else(PoisonError::into_inner).take_tasks();
    while tasks.join_next().await.is_some() {}
}

async fn accept(
    shared: Arc<Shared>,
    listener: Listener,
    tls: Option<Arc<ServerTls>>,
    open: Arc<Mutex<OpenConnections>>,
    mut taken_over: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = wait_taken_over(&mut taken_over) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, caller)) => {
                let (shared, tls, taken_over) = (shared.clone(), tls.clone(), taken_over.clone());
                open.lock().unwrap_or_else(PoisonError::into_inner).serve(|progress| async move {
                    if let Some((stream, caller)) = handshake(stream, caller, tls).await {
                        serve_connection(shared, (stream, progress), caller, taken_over).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept a connection: trying again");
                tokio::time::sleep(ACCEPT_DELAY).await;
            }
        }
    }
}

impl Listener {
    async fn accept(&self) -> std::io::Result<(Stream, Caller)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // The own address, and not the peer's: a proxy on this host speaks for others.
                let is_loopback = listener.local_addr()?.ip().is_loopback();
                let via = if is_loopback { Via::Loopback } else { Via::Network };
                Ok((Stream::Tcp(stream), Caller { from: peer.to_string(), via, certificate: None }))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().map_or_else(|_| "?".to_owned(), |peer| peer.uid().to_string());
                let caller = Caller { from: format!("user {user}"), via: Via::Socket, certificate: None };
                Ok((Stream::Unix(stream), caller))
            }
        }
    }
}

/// Performs the TLS handshake of a connection over TCP, and adds the names of its certificate to
/// the caller. `None` if it failed.
async fn handshake(stream: Stream, mut caller: Caller, tls: Option<Arc<ServerTls>>) -> Option<(Stream, Caller)> {
    let (stream, tls) = match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) => (stream, tls),
        (stream, _) => return Some((stream, caller)),
    };
    let context = tls.current();
    let accepted = tokio::time::timeout(HEAD_TIMEOUT, accept_tls(stream, context.config.clone())).await;
    let accepted = accepted.map_err(|_| format!("no handshake within {HEAD_TIMEOUT:?}"));
    let accepted = accepted.and_then(|accepted| accepted.map_err(|error| error.to_string()));
    let described = accepted.and_then(|stream| Ok((context.info(&stream, SystemTime::now())?, stream)));
    match described {
        Ok((info, stream)) => {
            caller.certificate = info.peer.map(|peer| {
                caller.from = format!("{} ({})", caller.from, peer.subject);
                peer.alternative_names.into_iter().chain([peer.subject]).collect()
            });
            Some((stream, caller))
        }
        Err(why) => {
            tracing::debug!(from = caller.from, why, "a TLS handshake of the admin listener failed");
            None
        }
    }
}

async fn serve_connection(
    shared: Arc<Shared>,
    (stream, progress): (Stream, Arc<Progress>),
    caller: Caller,
    mut taken_over: watch::Receiver<bool>,
) {
    let watched = Watched::new(stream, progress.clone());
    let service = service_fn(move |request| {
        let response = if tap::is_tap(&request) {
            let response = tap::respond(&shared, &caller, &request);
            if response.status().is_success() {
                progress.exempt();
            }
            response
        } else {
            router::respond(&shared, &caller, &request).map(Either::Left)
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(watched), service));
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
