//! An HTTP/2 client with prior knowledge, built on the crate `h2`, for tests on one thread.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};

/// Runs a future on this thread. Fails after 30 s.
pub(crate) fn run<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), future).await.context("the test did not finish within 30 s")?
    })
}

/// Polls until `condition` holds. Unlike `harness::wait_until` it does not block the connections of
/// this thread. Fails after 10 s.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        ensure!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Connects to the gateway. The join handle is the connection's driver, whose result says how the
/// connection ended.
pub(crate) async fn connect(
    address: SocketAddr,
) -> Result<(SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>)> {
    connect_with(address, &h2::client::Builder::new()).await
}

/// Connects to the gateway with other settings, such as window sizes.
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

/// A request without `content-length`.
pub(crate) fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://test{path}")).version(http::Version::HTTP_2).body(()).unwrap()
}

/// A response with its complete body.
pub(crate) struct WholeResponse {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl WholeResponse {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request, with a body if there is one, and reads the response.
pub(crate) async fn fetch(
    send: &SendRequest<Bytes>,
    request: Request<()>,
    body: Option<&[u8]>,
) -> Result<WholeResponse> {
    let mut send = send.clone().ready().await?;
    let (response, mut stream) = send.send_request(request, body.is_none())?;
    let writing = async {
        match body {
            Some(body) => write(&mut stream, Bytes::copy_from_slice(body), true).await,
            None => Ok(()),
        }
    };
    let (written, response) = tokio::join!(writing, async { read(response.await?).await });
    let response = response?;
    written?;
    Ok(response)
}

/// Sends data as fast as flow control allows. `end` sets END_STREAM on the last frame.
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

/// Reads the body and the trailers.
pub(crate) async fn read(response: Response<RecvStream>) -> Result<WholeResponse> {
    let (head, mut stream) = response.into_parts();
    let (body, trailers) = drain(&mut stream).await?;
    Ok(WholeResponse { head: Response::from_parts(head, ()), body, trailers })
}

/// Reads a stream's data and trailers to the end.
pub(crate) async fn drain(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = vec![];
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok((body, stream.trailers().await?))
}
