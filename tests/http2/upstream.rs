//! An HTTP/2 upstream, built on the crate `h2`, whose behavior the request path selects.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};

use super::client::{drain, write};

/// An HTTP/2 upstream on its own thread.
///
/// The path selects the response:
/// - `/echo`: the request's body and trailers
/// - `/fields`: the request's fields as text
/// - `/length`: the length of the request's body
/// - `/hint`: a 103, then a 200
/// - `/hang`: none, until the stream is reset
/// - `/large`: an endless body
/// - `/abort`: a part of a body, then RST_STREAM
/// - `/goodbye`: a 200, then GOAWAY
/// - `/refuse`: REFUSED_STREAM
/// - `/switch`: a 101, which HTTP/2 does not allow
/// - `/ws`: a tunnel that returns every byte in upper case, and `bye` at the end
/// - `/no-ws`: a 403
pub(crate) struct H2Upstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    resets: Arc<Mutex<Vec<(Instant, Reason)>>>,
    requests: Arc<AtomicUsize>,
}

impl H2Upstream {
    pub(crate) fn start() -> Result<Self> {
        Self::start_as(Kind { streams: 200, connect: true })
    }

    /// An upstream with this MAX_CONCURRENT_STREAMS.
    pub(crate) fn start_with(streams: u32) -> Result<Self> {
        Self::start_as(Kind { streams, connect: true })
    }

    /// An upstream whose SETTINGS do not allow extended CONNECT.
    pub(crate) fn start_without_connect() -> Result<Self> {
        Self::start_as(Kind { streams: 200, connect: false })
    }

    fn start_as(kind: Kind) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let upstream = Self {
            address: listener.local_addr()?,
            connections: Arc::default(),
            resets: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, resets, requests) =
            (upstream.connections.clone(), upstream.resets.clone(), upstream.requests.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(serve(stream, kind, resets.clone(), requests.clone()));
                }
            });
        });
        Ok(upstream)
    }

    /// A configuration whose only route goes to this upstream.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "upstreams: {{u: {{endpoints: [\"http://{}\"], protocol: h2, timeout: 20s}}}}\nroutes: [{{upstream: u}}]",
            self.address
        )
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests received so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// When and why the gateway reset streams of `/hang` and `/large`.
    pub(crate) fn resets(&self) -> Vec<(Instant, Reason)> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Resets = Arc<Mutex<Vec<(Instant, Reason)>>>;

/// The settings of an upstream.
#[derive(Clone, Copy)]
struct Kind {
    streams: u32,
    connect: bool,
}

async fn serve(
    stream: tokio::net::TcpStream,
    kind: Kind,
    resets: Resets,
    requests: Arc<AtomicUsize>,
) -> Result<(), h2::Error> {
    let _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(kind.streams);
    if kind.connect {
        builder.enable_connect_protocol();
    }
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        requests.fetch_add(1, Ordering::Relaxed);
        if request.uri().path() == "/goodbye" {
            connection.graceful_shutdown();
        }
        tokio::spawn(respond_to(request, respond, resets.clone()));
    }
    Ok(())
}

async fn respond_to(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, resets: Resets) -> Result<()> {
    let (head, mut body) = request.into_parts();
    let ok = || Response::builder().status(200);
    match head.uri.path() {
        "/echo" => {
            let mut stream = respond.send_response(ok().body(())?, false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                write(&mut stream, data, false).await?;
            }
            match body.trailers().await? {
                Some(trailers) => stream.send_trailers(trailers)?,
                None => stream.send_data(Bytes::new(), true)?,
            }
        }
        "/fields" => {
            let mut text = format!("{} {}\n", head.method, head.uri);
            for (name, value) in &head.headers {
                text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
            }
            let mut stream = respond.send_response(ok().body(())?, false)?;
            write(&mut stream, text.into(), true).await?;
        }
        "/length" => {
            let (body, _) = drain(&mut body).await?;
            let mut stream = respond.send_response(ok().body(())?, false)?;
            write(&mut stream, body.len().to_string().into(), true).await?;
        }
        "/hint" => {
            respond.send_informational(
                Response::builder().status(StatusCode::EARLY_HINTS).header("link", "</a.css>; rel=preload").body(())?,
            )?;
            let mut stream = respond.send_response(ok().body(())?, false)?;
            stream.send_data("ok".into(), true)?;
        }
        "/refuse" => respond.send_reset(Reason::REFUSED_STREAM),
        "/switch" => {
            respond.send_informational(Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).body(())?)?;
            respond.send_response(ok().body(())?, true)?;
        }
        "/ws" => {
            let is_websocket =
                head.extensions.get::<h2::ext::Protocol>().is_some_and(|one| one.as_str() == "websocket");
            if head.method != "CONNECT" || !is_websocket || head.headers.contains_key("sec-websocket-key") {
                respond.send_response(Response::builder().status(400).body(())?, true)?;
                return Ok(());
            }
            let mut stream = respond.send_response(ok().body(())?, false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                write(&mut stream, data.to_ascii_uppercase().into(), false).await?;
            }
            write(&mut stream, "bye".into(), true).await?;
        }
        "/no-ws" => {
            respond.send_response(Response::builder().status(403).body(())?, true)?;
        }
        "/hang" => {
            let reason = poll_fn(|cx| respond.poll_reset(cx)).await?;
            resets.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), reason));
        }
        "/large" => {
            let mut stream = respond.send_response(ok().body(())?, false)?;
            let block = Bytes::from(vec![b'x'; 64 << 10]);
            while write(&mut stream, block.clone(), false).await.is_ok() {}
            resets.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), Reason::CANCEL));
        }
        "/abort" => {
            let mut stream = respond.send_response(ok().body(())?, false)?;
            // More than all windows hold, so the gateway has forwarded a part before the reset.
            write(&mut stream, vec![b'x'; 8 << 20].into(), false).await?;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        _ => {
            let mut stream = respond.send_response(ok().body(())?, false)?;
            stream.send_data("ok".into(), true)?;
        }
    }
    Ok(())
}
