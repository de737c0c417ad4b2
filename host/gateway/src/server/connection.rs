//! One client connection: finds out who the client is and which HTTP version it speaks, then
//! serves it.
//!
//! Over TLS the version comes from ALPN; a client without ALPN speaks HTTP/1.1. Without TLS,
//! HTTP/2 begins with its preface (RFC 9113, section 3.3), and anything else is HTTP/1.1. This
//! module does not know: what happens to a request.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;

use super::idle_connections::ThreadConnection;
use super::worker::{DRAIN_GRACE, Worker};
use super::{h1, h2, handshake};
use crate::clients::{ClientPermit, fair_share};
use crate::net::Stream;
use crate::pipeline::snapshot::Shared;
use crate::process::files;
use crate::telemetry::WARNINGS;
use crate::tls::ServerTls;
use witgate_config::HalfClose;
use witgate_http::limiter::Permit;
use witgate_http::semantics::{forwarded, proxy_protocol};
use witgate_runtime::exchange::Client;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Each client may have so many connections, however many others there are.
const CLIENT_FLOOR: usize = 128;
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

/// Serves a connection to its end. `permit` counts it until then.
///
/// The task of an idle connection is small: the state of the handshakes and of HTTP/2 has boxes of
/// its own, and the arguments move into the first of them.
pub(super) fn serve(
    worker: Worker,
    stream: Stream,
    peer: SocketAddr,
    options: ListenerOptions,
    connection: Rc<ThreadConnection>,
    permit: Permit,
) -> impl Future<Output = ()> + 'static {
    let half_close = options.half_close;
    let opening = Box::pin(open(worker, stream, peer, options));
    async move {
        let _until_closed = permit;
        let Some(Opened { worker, io, input, is_h2, client, _client_permit }) = opening.await else { return };
        if is_h2 {
            Box::pin(h2::serve(&worker, &connection, io, input, &client)).await;
        } else {
            h1::serve(&worker, &connection, io, input, &client, half_close).await;
        }
    }
}

/// A connection whose client and protocol are known.
struct Opened {
    worker: Worker,
    io: Stream,
    /// Bytes that were read from `io`.
    input: BytesMut,
    is_h2: bool,
    client: Arc<Client>,
    _client_permit: Option<ClientPermit>,
}

/// Finds out the client and the protocol. None if the connection must be closed.
async fn open(mut worker: Worker, mut stream: Stream, peer: SocketAddr, options: ListenerOptions) -> Option<Opened> {
    let timeouts = worker.settings().timeouts;
    let address = if options.proxy_protocol {
        // Anybody could name any client.
        if !forwarded::is_trusted(peer.ip(), &worker.shared.snapshot.load().config.trusted_proxies) {
            warn_untrusted(&worker, peer);
            return None;
        }
        client_address(&mut stream, peer, timeouts.head).await?
    } else {
        peer
    };
    let permit = enter_client(&worker.shared, address).ok()?;
    worker.client_in_flight = permit.as_ref().map(|permit| permit.in_flight.clone());
    let mut client = Client::new(address);
    let mut input = BytesMut::new();
    let (io, is_h2) = match options.tls {
        None => {
            let mut io = stream;
            let speaks_h2 = speaks_h2(&mut io, &mut input, timeouts.head);
            let is_h2 = tokio::select! {
                biased;
                is_h2 = tokio::time::timeout(timeouts.first_byte(), speaks_h2) => is_h2,
                () = worker.drained_for(DRAIN_GRACE) => return None,
            };
            (io, is_h2.ok()??)
        }
        Some(tls) => {
            // The configuration has no UNIX sockets with TLS.
            let Stream::Tcp(stream) = stream else { return None };
            let (io, info) = handshake::accept(&worker, stream, client.address, &tls, timeouts.head).await?;
            let is_h2 = info.alpn == Some("h2");
            client.tls = Some(Arc::new(info));
            (io, is_h2)
        }
    };
    Some(Opened { worker, io, input, is_h2, client: Arc::new(client), _client_permit: permit })
}

/// Takes the permit for a connection of the client. `Ok(None)` for a trusted proxy, whose
/// connections carry the requests of many clients.
///
/// # Errors
/// The client has too many connections.
fn enter_client(shared: &Shared, address: SocketAddr) -> Result<Option<ClientPermit>, ()> {
    let snapshot = shared.snapshot.load();
    let (limits, trusted) = (&snapshot.config.limits, &snapshot.config.trusted_proxies);
    if forwarded::is_trusted(address.ip(), trusted) {
        return Ok(None);
    }
    let max = match limits.connections_per_client {
        0 => fair_share(
            files::connections_max(shared.files_max, &snapshot.config),
            shared.connections.in_use(),
            CLIENT_FLOOR,
        ),
        configured => configured,
    };
    let permit = shared.clients.try_connect(address.ip(), max);
    if permit.is_none() {
        shared.metrics.refused_connections.inc();
        tracing::debug!(client = %address, max, "closed a connection above the client's share of connections");
    }
    permit.map(Some).ok_or(())
}

fn warn_untrusted(worker: &Worker, peer: SocketAddr) {
    let listener = &*worker.listener;
    if let Some(suppressed) = WARNINGS.allow(&format!("proxy {listener}")) {
        let suppressed = (suppressed > 0).then_some(suppressed);
        tracing::warn!(
            listener, %peer, suppressed,
            "closed a connection: this listener has proxy_protocol, and the peer is not in trusted_proxies"
        );
    }
}

/// The client's address in the PROXY header, or that of the peer if the header names none. `None`
/// if the header is missing or invalid.
async fn client_address(stream: &mut Stream, peer: SocketAddr, timeout: Duration) -> Option<SocketAddr> {
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
async fn read_proxy_header(stream: &mut Stream) -> Result<Option<SocketAddr>, String> {
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
