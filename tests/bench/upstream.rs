//! The upstream of every gateway, which answers every request with 1 KB at little cost.
//!
//! It runs on the load's thread, because two threads on one core would wait for each other. If the
//! request line contains `seen`, the response is the request's header section. Cases are checked
//! with that before they are measured.
//!
//! This module does not know: which gateway sends the requests.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Size of a response's body, in bytes.
pub(crate) const BODY: usize = 1024;
/// Limit for the size of a request, which has no body.
const HEAD_MAX: usize = 16 * 1024;

/// Listens on a free port, and serves while the runtime runs.
pub(crate) async fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let usual = response("x".repeat(BODY).as_bytes());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let usual = usual.clone();
            // A connection ends with an error when its gateway exits.
            tokio::spawn(async move { serve(stream, &usual).await.is_ok() });
        }
    });
    Ok(address)
}

fn response(body: &[u8]) -> Vec<u8> {
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
        if wants_head(&buffer[..end]) {
            let head = response(&buffer[..end]);
            stream.write_all(&head).await?;
        } else {
            stream.write_all(usual).await?;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

/// Returns where the header section ends, after its empty line.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Whether the request line contains `seen`.
fn wants_head(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.windows(4).any(|four| four == b"seen")
}
