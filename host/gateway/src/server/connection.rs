//! One client connection: finds out who the client is and which HTTP version it speaks, then
//! serves it.
//!
//! Over TLS the version comes from ALPN; a client without ALPN speaks HTTP/1.1. Without TLS,
//! HTTP/2 begins with its preface (RFC 9113, section 3.3), and anything else is HTTP/1.1. This
//! module does not know: what happens to a request.

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
use witgate_config::HalfClose;
use witgate_http::semantics::proxy_protocol;
use witgate_runtime::exchange::Client;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bounds a PROXY header.
const PROXY_BYTES_MAX: usize = 4096;

/// What a listener expects before the first byte of HTTP.
#[derive(Clone)]
pub struct ListenerOptions {
    /// A TLS handshake with these settings.
    pub tls: Option<Arc<ServerTls>>,
    /// A PROXY header, which names the client.
    pub proxy_protocol: bool,
    /// What a client gets that closed its sending direction.
    pub half_close: HalfClose,
}

/// Serves a connection to its end.
pub async fn serve(worker: Worker, mut stream: TcpStream, peer: SocketAddr, options: ListenerOptions) {
    let timeouts = worker.settings().timeouts;
    let Some(address) = client_address(&mut stream, peer, options.proxy_protocol, timeouts.head).await else { return };
    let max = worker.shared.snapshot.load().config.limits.connections_per_client;
    let permit = (max > 0).then(|| worker.shared.clients.try_acquire(address.ip(), max));
    if matches!(permit, Some(None)) {
        worker.shared.metrics.refused_connections.inc();
        return tracing::debug!(client = %address, max, "closed a connection above limits.connections_per_client");
    }
    let mut client = Client::new(address);
    let mut input = BytesMut::new();
    let (io, is_h2) = match options.tls {
        None => {
            let mut io = Stream::Tcp(stream);
            let speaks_h2 = speaks_h2(&mut io, &mut input, timeouts.head);
            let is_h2 = tokio::select! {
                biased;
                is_h2 = tokio::time::timeout(timeouts.idle, speaks_h2) => is_h2,
                () = worker.drained_for(DRAIN_GRACE) => return,
            };
            let Ok(is_h2) = is_h2 else { return };
            (io, is_h2)
        }
        Some(tls) => {
            let accepted = handshake::accept(&worker, stream, client.address, &tls, timeouts.head).await;
            let Some((io, info)) = accepted else { return };
            let is_h2 = info.alpn == Some("h2");
            client.tls = Some(Arc::new(info));
            (io, Some(is_h2))
        }
    };
    let client = Arc::new(client);
    match is_h2 {
        Some(true) => h2::serve(&worker, io, input, &client).await,
        Some(false) => h1::serve(&worker, io, input, &client, options.half_close).await,
        None => {}
    }
}

/// The client's address: that of the peer, or the one in the PROXY header. `None` if the PROXY
/// header is required, but missing or invalid.
async fn client_address(
    stream: &mut TcpStream,
    peer: SocketAddr,
    proxy_protocol: bool,
    timeout: Duration,
) -> Option<SocketAddr> {
    if !proxy_protocol {
        return Some(peer);
    }
    match tokio::time::timeout(timeout, read_proxy_header(stream)).await {
        Ok(Ok(address)) => Some(address.unwrap_or(peer)),
        Ok(Err(why)) => {
            tracing::debug!(%peer, why, "closed a connection without a valid PROXY header");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "closed a connection: no PROXY header arrived in time");
            None
        }
    }
}

/// Reads the PROXY header and not a byte more, because TLS may follow. `None` if the header names
/// no address.
async fn read_proxy_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, String> {
    let mut start = vec![0; PROXY_BYTES_MAX];
    let mut previous_length = 0;
    loop {
        let length = stream.peek(&mut start).await.map_err(|error| error.to_string())?;
        if length == 0 {
            return Err("the peer closed the connection before its PROXY header".into());
        }
        if let Some((header_bytes, address)) = proxy_protocol::parse(&start[..length])? {
            stream.read_exact(&mut start[..header_bytes]).await.map_err(|error| error.to_string())?;
            return Ok(address);
        }
        if length == previous_length {
            // The rest of the header has not arrived: peeking again at once would spin.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        previous_length = length;
    }
}

/// Whether the client begins with the HTTP/2 preface; `None` if it closed the connection. The bytes
/// read are in `input`.
async fn speaks_h2(io: &mut Stream, input: &mut BytesMut, timeout: Duration) -> Option<bool> {
    loop {
        if !input.is_empty() && !H2_PREFACE.starts_with(&input[..input.len().min(H2_PREFACE.len())]) {
            return Some(false);
        }
        if input.len() >= H2_PREFACE.len() {
            return Some(true);
        }
        let has_begun = !input.is_empty();
        let filling = poll_fn(|context| io.poll_fill(context, input));
        let filled = if has_begun { tokio::time::timeout(timeout, filling).await.ok()? } else { filling.await };
        if filled.ok()? == 0 {
            return None;
        }
    }
}
