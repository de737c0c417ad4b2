//! The TLS handshake of one client connection: its deadline, its count, and what it says.
//!
//! It runs in the connection's own task, so a client that sends nothing holds up nobody, and the certificates are those that are the newest when it
//! begins. Must not know: which certificates, what comes after.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;

use super::worker::{HANDSHAKE_DRAIN_GRACE, Worker};
use crate::net::Stream;
use crate::net::tls::accept_tls;
use crate::telemetry::HandshakeLabels;
use crate::tls::ServerTls;
use witgate_runtime::exchange::TlsInfo;

/// Speaks TLS; none where the client failed or was too slow, or a drain did not want to wait.
pub(super) async fn accept(
    worker: &Worker,
    stream: TcpStream,
    address: SocketAddr,
    tls: &ServerTls,
    deadline: Duration,
) -> Option<(Stream, TlsInfo)> {
    let served = tls.current();
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(deadline, accept_tls(stream, served.config.clone())) => accepted,
        () = worker.drained_for(HANDSHAKE_DRAIN_GRACE) => return None,
    };
    let outcome = match accepted {
        Err(_) => Err(("timeout", format!("no handshake within {deadline:?}"))),
        Ok(Err(error)) => Err(("failed", error.to_string())),
        Ok(Ok(stream)) => match served.info(&stream, SystemTime::now()) {
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
