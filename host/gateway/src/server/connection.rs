//! One client connection from its first byte: who the client is, which HTTP version it speaks, and its end.
//!
//! Over TLS the version is agreed on by ALPN, HTTP/1.1 where a client takes no part in it. Without TLS it is known by HTTP/2's preface (RFC 9113, section 3.3): what begins
//! otherwise is HTTP/1.1. Must not know: what happens to a request (`proxy.rs`).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::worker::{DRAIN_GRACE, Worker};
use super::{h1, h2, handshake};
use crate::net::Stream;
use crate::tls::ServerTls;
use witgate_http::semantics::proxy_protocol;
use witgate_runtime::exchange::Client;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest PROXY header.
const PROXY_BYTES_MAX: usize = 4096;

/// What a listener asks of a connection before the first byte of HTTP.
#[derive(Clone)]
pub struct Entrance {
    /// A handshake.
    pub tls: Option<Arc<ServerTls>>,
    /// A PROXY header, which says who the client is.
    pub proxied: bool,
}

/// Serves a connection to its end.
pub async fn serve(worker: Worker, mut stream: TcpStream, peer: SocketAddr, entrance: Entrance) {
    let waits = worker.settings().timeouts;
    let Some(address) = client_address(&mut stream, peer, entrance.proxied, waits.head).await else { return };
    let max = worker.shared.snapshot.load().config.limits.connections_per_client;
    let place = (max > 0).then(|| worker.shared.clients.enter(address.ip(), max));
    if matches!(place, Some(None)) {
        worker.shared.metrics.refused_connections.inc();
        return tracing::debug!(client = %address, max, "a connection above limits.connections_per_client was closed");
    }
    let mut client = Client::new(address);
    let mut input = BytesMut::new();
    let (io, is_h2) = match entrance.tls {
        None => {
            let mut io = Stream::Tcp(stream);
            let speaks_h2 = speaks_h2(&mut io, &mut input, waits.head);
            let is_h2 = tokio::select! {
                biased;
                is_h2 = tokio::time::timeout(waits.idle, speaks_h2) => is_h2,
                () = worker.drained_for(DRAIN_GRACE) => return,
            };
            let Ok(is_h2) = is_h2 else { return };
            (io, is_h2)
        }
        Some(tls) => {
            let shaken = handshake::accept(&worker, stream, client.address, &tls, waits.head).await;
            let Some((io, info)) = shaken else { return };
            let is_h2 = info.alpn == Some("h2");
            client.tls = Some(Arc::new(info));
            (io, Some(is_h2))
        }
    };
    let client = Arc::new(client);
    match is_h2 {
        Some(true) => h2::serve(&worker, io, input, &client).await,
        Some(false) => h1::serve(&worker, io, input, &client).await,
        None => {}
    }
}

/// Who the client is: the peer, or whom its PROXY header names. None where there should be such a header and is none.
async fn client_address(
    stream: &mut TcpStream,
    peer: SocketAddr,
    proxied: bool,
    limit: Duration,
) -> Option<SocketAddr> {
    if !proxied {
        return Some(peer);
    }
    match tokio::time::timeout(limit, told_address(stream)).await {
        Ok(Ok(told)) => Some(told.unwrap_or(peer)),
        Ok(Err(why)) => {
            tracing::debug!(%peer, why, "a connection without a good PROXY header was closed");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "no PROXY header came in time");
            None
        }
    }
}

/// Takes the PROXY header off a connection, and not a byte more: what follows may be TLS. None where it names nobody.
async fn told_address(stream: &mut TcpStream) -> Result<Option<SocketAddr>, String> {
    let mut start = vec![0; PROXY_BYTES_MAX];
    let mut seen = 0;
    loop {
        let length = stream.peek(&mut start).await.map_err(|error| error.to_string())?;
        if length == 0 {
            return Err("it closed before its PROXY header".into());
        }
        if let Some((taken, address)) = proxy_protocol::parse(&start[..length])? {
            stream.read_exact(&mut start[..taken]).await.map_err(|error| error.to_string())?;
            return Ok(address);
        }
        if length == seen {
            // A header in pieces: peeking again at once would spin.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen = length;
    }
}

/// Whether the client begins with HTTP/2's preface; none where it left. What was read is in `input`.
async fn speaks_h2(io: &mut Stream, input: &mut BytesMut, head: Duration) -> Option<bool> {
    loop {
        if !input.is_empty() && !H2_PREFACE.starts_with(&input[..input.len().min(H2_PREFACE.len())]) {
            return Some(false);
        }
        if input.len() >= H2_PREFACE.len() {
            return Some(true);
        }
        let begun = !input.is_empty();
        let filling = poll_fn(|context| io.poll_fill(context, input));
        let filled = if begun { tokio::time::timeout(head, filling).await.ok()? } else { filling.await };
        if filled.ok()? == 0 {
            return None;
        }
    }
}
