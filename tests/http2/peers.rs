//! A client and an upstream that speak HTTP/2 by the book (the crate `h2`), and an HTTP/1 upstream that follows a script.

use std::future::poll_fn;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};

/// Runs a test's future on this thread; fails it after 30 seconds.
pub(crate) fn run<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), future).await.context("30 s are over")? })
}

/// Polls until `condition` holds; meanwhile connections go on, which `wait_until` would hold up.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        ensure!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// A connection to the gateway; its driver runs beside and gives how it ended.
pub(crate) async fn connect(
    address: SocketAddr,
) -> Result<(SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>)> {
    connect_with(address, &h2::client::Builder::new()).await
}

/// The same with windows of its own.
pub(crate) async fn connect_with(
    address: SocketAddr,
    builder: &h2::client::Builder,
) -> Result<(SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>)> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (send, connection) = builder.handshake(stream).await?;
    let driver = tokio::spawn(connection);
    Ok((send.ready().await?, driver))
}

/// A request without a body's length.
pub(crate) fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://test{path}")).version(http::Version::HTTP_2).body(()).unwrap()
}

/// A whole response.
pub(crate) struct Whole {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Whole {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request with a body (or none) and reads the answer.
pub(crate) async fn fetch(send: &SendRequest<Bytes>, request: Request<()>, body: Option<&[u8]>) -> Result<Whole> {
    let mut send = send.clone().ready().await?;
    let (response, mut stream) = send.send_request(request, body.is_none())?;
    let writing = async {
        match body {
            Some(body) => write(&mut stream, Bytes::copy_from_slice(body), true).await,
            None => Ok(()),
        }
    };
    let (wrote, whole) = tokio::join!(writing, async { read(response.await?).await });
    let whole = whole?;
    wrote?;
    Ok(whole)
}

/// Sends as fast as the windows allow.
pub(crate) async fn write(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> Result<()> {
    if data.is_empty() {
        return Ok(stream.send_data(data, end)?);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await.context("the stream is closed")??;
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, end && data.is_empty())?;
    }
    Ok(())
}

/// Reads a body and its trailers to the end.
pub(crate) async fn read(response: Response<RecvStream>) -> Result<Whole> {
    let (head, mut stream) = response.into_parts();
    let (body, trailers) = drain(&mut stream).await?;
    Ok(Whole { head: Response::from_parts(head, ()), body, trailers })
}

async fn drain(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = vec![];
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok((body, stream.trailers().await?))
}

/// An HTTP/2 upstream on a thread of its own. The path says what it does: `/echo` (body and trailers back), `/fields` (the fields as text), `/hint` (a 103
/// first), `/hang` (never answers), `/large` (64 KiB for ever), `/length`, `/abort` (RST_STREAM in the body), `/goodbye` (GOAWAY after it),
/// `/refuse` (REFUSED_STREAM), `/switch` (a 101, which HTTP/2 has not).
pub(crate) struct H2Upstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    resets: Arc<Mutex<Vec<(Instant, Reason)>>>,
    requests: Arc<AtomicUsize>,
}

impl H2Upstream {
    pub(crate) fn start() -> Result<Self> {
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
                    tokio::spawn(serve(stream, resets.clone(), requests.clone()));
                }
            });
        });
        Ok(upstream)
    }

    /// A configuration with one route to it.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "upstreams: {{u: {{endpoints: [\"http://{}\"], protocol: h2, timeout: 20s}}}}\nroutes: [{{upstream: u}}]",
            self.address
        )
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// When hanging requests were cancelled by the gateway.
    pub(crate) fn resets(&self) -> Vec<(Instant, Reason)> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Resets = Arc<Mutex<Vec<(Instant, Reason)>>>;

async fn serve(stream: tokio::net::TcpStream, resets: Resets, requests: Arc<AtomicUsize>) -> Result<(), h2::Error> {
    let _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(200);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        requests.fetch_add(1, Ordering::Relaxed);
        if request.uri().path() == "/goodbye" {
            connection.graceful_shutdown();
        }
        tokio::spawn(answer(request, respond, resets.clone()));
    }
    Ok(())
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, resets: Resets) -> Result<()> {
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
            // More than every window: the beginning has surely gone on when the end is broken off.
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

/// An HTTP/1 upstream whose connections are handed to a function, head already read.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    /// What the function wants to tell the test.
    pub(crate) told: Receiver<(Instant, String)>,
}

/// One connection of it.
pub(crate) struct Session {
    pub(crate) head: String,
    pub(crate) input: BufReader<TcpStream>,
    pub(crate) output: TcpStream,
    tell: Sender<(Instant, String)>,
}

impl Session {
    pub(crate) fn write(&mut self, text: &str) {
        let _ = self.output.write_all(text.as_bytes());
    }

    pub(crate) fn tell(&self, what: &str) {
        let _ = self.tell.send((Instant::now(), what.to_owned()));
    }

    /// Reads until the gateway closes; tells `gone` then.
    pub(crate) fn until_gone(&mut self) {
        let mut block = [0; 4096];
        while self.input.read(&mut block).is_ok_and(|read| read > 0) {}
        self.tell("gone");
    }

    fn read_head(&mut self) -> bool {
        self.head.clear();
        loop {
            match self.input.read_line(&mut self.head) {
                Ok(0) | Err(_) => return false,
                Ok(_) if self.head.ends_with("\r\n\r\n") => return true,
                Ok(_) => {}
            }
        }
    }
}

impl Scripted {
    pub(crate) fn start(script: fn(&mut Session)) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for output in listener.incoming().map_while(Result::ok) {
                let tell = tell.clone();
                std::thread::spawn(move || {
                    let Ok(input) = output.try_clone() else { return };
                    let mut session = Session { head: String::new(), input: BufReader::new(input), output, tell };
                    while session.read_head() {
                        script(&mut session);
                    }
                });
            }
        });
        Ok(Self { address, told })
    }

    /// A configuration with one route to it.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 20s}}}}\nroutes: [{{upstream: u}}]",
            self.address
        )
    }

    /// Waits until the script tells this; gives when it did.
    pub(crate) fn wait(&self, what: &str) -> Result<Instant> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (when, told) =
                self.told.recv_timeout(left).with_context(|| format!("the upstream never saw: {what}"))?;
            if told == what {
                return Ok(when);
            }
        }
    }
}
