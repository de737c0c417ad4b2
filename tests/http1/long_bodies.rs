//! Long bodies between sockets without TLS, which pass through pipes inside of the kernel: every
//! byte arrives in order, a body that breaks off does not look complete, and nothing stays open.

use std::fs;
use std::io::{Read as _, Write as _};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Client, Gateway};

use super::raw::{RawConnection, ScriptedUpstream, gateway_to};

/// More than two fillings of a pipe.
const BYTES: usize = 3 << 20;

/// Bytes in which a part that is missing, repeated or in the wrong place shows.
fn pattern() -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..BYTES as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
    });
    &PATTERN
}

/// Reads a head from an upstream's connection. The bytes after it stay in `bytes`.
fn read_head(connection: &mut RawConnection) -> Result<String> {
    loop {
        if let Some(end) = connection.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = connection.bytes.split_off(end + 4);
            return Ok(String::from_utf8(std::mem::replace(&mut connection.bytes, rest))?);
        }
        let mut buffer = [0; 4096];
        let read = connection.stream.read(&mut buffer)?;
        ensure!(read > 0, "the gateway closed the connection");
        connection.bytes.extend_from_slice(&buffer[..read]);
    }
}

/// Responds with the pattern, as the path says: `/length`, `/chunked` in chunks of one MiB, or
/// `/cut` before its last byte. A request with a body gets `same` or `different`.
fn serve(connection: &mut RawConnection) -> Result<()> {
    let pattern = pattern();
    loop {
        let head = read_head(connection)?;
        let path = head.split(' ').nth(1).context("a request line")?;
        match path {
            "/length" | "/cut" => {
                let sent = if path == "/cut" { &pattern[..BYTES - 1] } else { pattern };
                write!(connection.stream, "HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n")?;
                connection.stream.write_all(sent)?;
                ensure!(path != "/cut", "the body is cut");
            }
            "/chunked" => {
                connection.stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                for part in pattern.chunks(1 << 20) {
                    write!(connection.stream, "{:x}\r\n", part.len())?;
                    connection.stream.write_all(part)?;
                    connection.stream.write_all(b"\r\n")?;
                }
                connection.stream.write_all(b"0\r\n\r\n")?;
            }
            _ => {
                let mut body = std::mem::take(&mut connection.bytes);
                let begin = body.len();
                body.resize(BYTES, 0);
                connection.stream.read_exact(&mut body[begin..])?;
                let verdict = if body == pattern { "same" } else { "different" };
                let length = verdict.len();
                write!(connection.stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{verdict}")?;
            }
        }
    }
}

/// The pipes that a process has open.
fn pipes(gateway: &Gateway) -> Result<usize> {
    let links = fs::read_dir(format!("/proc/{}/fd", gateway.id()))?.flatten();
    Ok(links
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count())
}

#[test]
fn long_bodies_arrive_unchanged() -> Result<()> {
    let upstream = ScriptedUpstream::start(serve)?;
    let gateway = gateway_to(&upstream, "")?;
    let before = pipes(&gateway)?;
    let mut client = gateway.client()?;
    for path in ["/length", "/chunked", "/length"] {
        let response = client.get(path, &[])?;
        ensure!(response.status == 200 && response.body == pattern(), "{path}: {} bytes", response.body.len());
    }
    for _ in 0..2 {
        assert_eq!(client.send("POST", "/upload", &[], pattern())?.text(), "same");
    }
    let kept = pipes(&gateway)? - before;
    ensure!((2..=8).contains(&kept), "{kept} descriptors of pipes are open: none was used, or they leak");
    Ok(())
}

#[test]
fn a_long_body_that_breaks_off_is_not_complete() -> Result<()> {
    let upstream = ScriptedUpstream::start(serve)?;
    let gateway = gateway_to(&upstream, "")?;
    assert!(gateway.get("/cut", &[]).is_err(), "a body that is cut must not end cleanly");
    let before = pipes(&gateway)?;
    for _ in 0..30 {
        // The client leaves in the middle of the body, while bytes are in a pipe.
        let mut client = gateway.client()?;
        client.begin("GET", "/length", &[], b"")?;
        ensure!(client.read_head()?.status == 200);
    }
    assert_eq!(gateway.client()?.send("POST", "/upload", &[], pattern())?.text(), "same");
    harness::wait_until("the pipes of the clients that left are closed", || {
        pipes(&gateway).is_ok_and(|pipes| pipes <= before + 8)
    });
    Ok(())
}

/// More readers that pause than a thread has pipes: the rest is served through buffers.
#[test]
fn slow_readers_of_long_bodies_get_every_byte() -> Result<()> {
    const READERS: usize = 40;
    let upstream = ScriptedUpstream::start(serve)?;
    let gateway = gateway_to(&upstream, "")?;
    let start = || -> Result<Client> {
        let mut client = gateway.client()?;
        client.begin("GET", "/length", &[], b"")?;
        Ok(client)
    };
    let mut readers = (0..READERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
    // All readers have the start of their body, and their sockets fill.
    for _ in 0..5 {
        assert_eq!(gateway.client()?.send("POST", "/upload", &[], pattern())?.text(), "same");
        std::thread::sleep(Duration::from_millis(50));
    }
    for reader in &mut readers {
        let response = reader.read(false)?;
        ensure!(response.body == pattern(), "a reader got {} bytes", response.body.len());
    }
    Ok(())
}
