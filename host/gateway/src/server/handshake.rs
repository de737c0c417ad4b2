//! The TLS handshake of a client connection: its deadline, its metric and its log line.
//!
//! The handshake runs in the task of the connection, so a client that sends nothing delays no
//! other. It uses the certificates that are current when it begins. This module does not know:
//! how a certificate is chosen, which protocol follows.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;

use super::worker::{HANDSHAKE_DRAIN_GRACE, Worker};
use crate::net::Stream;
use crate::net::tls::accept_tls;
use crate::telemetry::HandshakeLabels;
use crate::tls::ServerTls;
use witgate_runtime::exchange::TlsInfo;

/// Performs the handshake. `None` if it failed or timed out, or if a drain ended it.
pub(super) async fn accept(
    worker: &Worker,
    stream: TcpStream,
    address: SocketAddr,
    tls: &ServerTls,
    timeout: Duration,
) -> Option<(Stream, TlsInfo)> {
    let current = tls.current();
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(timeout, accept_tls(stream, current.config.clone())) => accepted,
        () = worker.drained_for(HANDSHAKE_DRAIN_GRACE) => return None,
    };
    let outcome = match accepted {
        Err(_) => Err(("timeout", format!("no handshake within {timeout:?}"))),
        Ok(Err(error)) => Err(("failed", error.to_string())),
        Ok(Ok(stream)) => match current.info(&stream, SystemTime::now()) {
            Ok(info) => Ok((stream, info)),
            Err(why) => Err(("failed", why)),
        },
    };
    let result = match &outcome {
        Ok((_, info)) if info.resumed => "resumed",
        Ok(_) => "full",
        Err((result, why)) => {
            tracing::debug!(listener = &*tls.listener, client = %address, why, "a TLS handshake failed");
            result
        }
    };
    worker.shared.metrics.handshakes.get_or_create(&HandshakeLabels { listener: tls.listener.clone(), result }).inc();
    outcome.ok()
}
