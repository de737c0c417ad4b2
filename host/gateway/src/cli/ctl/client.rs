//! One request to the admin listener over plain HTTP/1.1.
//!
//! The connection ends with the response, so the body is what follows the head. This module does
//! not know: what is asked for.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use witgate_http::text::bounded;

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A response.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body as a line for a person.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        format!("{}: {}", self.status, bounded(text.trim_end()))
    }
}

/// Sends a request without a body.
pub(super) fn send(address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> Result<Answer, String> {
    let fail = |error: std::io::Error| {
        format!("{address}: {error}; does the gateway run, and is this its admin address (--admin, --config)?")
    };
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(fail)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(fail)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(fail)?;
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{token}{length}\r\n");
    stream.write_all(head.as_bytes()).map_err(fail)?;
    let mut answer = vec![];
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(fail)?;
    parse(&answer).ok_or_else(|| format!("{address}: this is not the answer of an admin listener"))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let line = answer[..end].split(|byte| *byte == b'\r').next()?;
    let status = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Answer { status, body: answer[end + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse(b"HTTP/1.1 409 Conflict\r\na: b\r\n\r\nno\r\n\r\n");
        assert_eq!(answer.map(|answer| (answer.status, answer.text())), Some((409, "409: no".into())));
        for bad in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n"] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
