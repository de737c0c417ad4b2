//! The TLS handshake of a client connection: its deadline, its metric and its log line.
//!
//! The handshake runs in the task of the connection, so a client that sends nothing delays no
//! other. It uses the certificates that are current when it begins. This module does not know:
//! how a certificate is chosen, which protocol follows.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::worker::{HANDSHAKE_DRAIN_GRACE, Worker};
use crate::net::Stream;
use crate::net::tls::accept_tls;
use crate::telemetry::HandshakeLabels;
use crate::tls::ServerTls;
use witgate_runtime::exchange::TlsInfo;

/// What a client without TLS gets, in words rather than as an alert that no client of HTTP reads.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 55\r\nconnection: close\r\n\r\nthis port serves HTTP over TLS only: write https://...\n";
/// How long the client has to read it, and how many bytes of its request are read meanwhile.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
const REFUSAL_BYTES_MAX: u64 = 64 << 10;

/// Performs the handshake. `None` if it failed or timed out, or if a drain ended it.
pub(super) async fn accept(
    worker: &Worker,
    stream: TcpStream,
    address: SocketAddr,
    tls: &ServerTls,
    timeout: Duration,
) -> Option<(Stream, TlsInfo)> {
    let current = tls.current();
    let handshake = async {
        if speaks_http(&stream).await {
            refuse_http(stream).await;
            return Err(io::Error::other("the client speaks HTTP without TLS"));
        }
        accept_tls(stream, current.config.clone()).await
    };
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(timeout, handshake) => accepted,
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

/// Whether the first byte is that of a method and not that of a handshake.
async fn speaks_http(stream: &TcpStream) -> bool {
    let mut first = [0];
    stream.peek(&mut first).await.is_ok_and(|read| read == 1) && first[0].is_ascii_uppercase()
}

/// Answers a request without TLS. Closing a socket with unread bytes would reset the connection,
/// and the client might lose the answer.
async fn refuse_http(mut stream: TcpStream) {
    let answer = async {
        stream.write_all(PLAIN_HTTP).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(REFUSAL_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // A client that is gone, or that stays longer, has had its answer.
    let _ = tokio::time::timeout(REFUSAL_TIME, answer).await;
}
