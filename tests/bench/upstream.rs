//! The upstream behind every gateway: 1 KB to whatever request arrives, as cheaply as can be, on the load's own thread.
//!
//! One thread for both, so that a core has no two that wait for each other. A request line with `seen` is answered with the request's head
//! instead: so a case is checked before it is measured. Must not know: who asks.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of an answer's body.
pub(crate) const BODY: usize = 1024;
/// No request here is longer: a head, no body.
const HEAD_MAX: usize = 16 * 1024;

/// Serves on a port of the system's choice while the runtime runs.
pub(crate) async fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answer = answer("x".repeat(BODY).as_bytes());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            // A gateway that goes away ends its connections; nobody waits for the reason.
            tokio::spawn(async move { serve(stream, &answer).await.is_ok() });
        }
    });
    Ok(address)
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn serve(mut stream: TcpStream, usual: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; HEAD_MAX];
    let mut filled = 0;
    loop {
        let Some(end) = end_of_head(&buffer[..filled]) else {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            continue;
        };
        if is_seen(&buffer[..end]) {
            let head = answer(&buffer[..end]);
            stream.write_all(&head).await?;
        } else {
            stream.write_all(usual).await?;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

/// After the empty line.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn is_seen(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.windows(4).any(|four| four == b"seen")
}
