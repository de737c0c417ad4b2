//! Requests of the commands to the admin listener: over TCP, TLS or a UNIX socket.
//!
//! The connection ends with the response, so the body is what follows the head. This module does
//! not know: what is asked for, how a connection is made (`admin_connection`).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::admin_connection::{Connection, Endpoint, TlsFiles};
use crate::control::config_source::ConfigSource;
use witgate_http::text::bounded;

/// The admin listener's default address.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// The environment variable with the token, for calls without `--config`.
const TOKEN_VARIABLE: &str = "WITGATE_ADMIN_TOKEN";

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The gateway sends an empty line to an idle stream every 15 s.
const STREAM_TIMEOUT: Duration = Duration::from_secs(60);
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Which gateway a command asks.
#[derive(Args)]
pub(super) struct TargetOptions {
    /// The gateway's configuration: its admin socket or address, and its token are used
    #[arg(long, short, value_name = "FILE", global = true, conflicts_with = "admin")]
    pub(super) config: Option<PathBuf>,
    /// The admin address, https://HOST:PORT, or unix:PATH; the token is taken from
    /// WITGATE_ADMIN_TOKEN
    #[arg(long, value_name = "ADDRESS", global = true, value_parser = Endpoint::parse)]
    pub(super) admin: Option<Endpoint>,
    #[command(flatten)]
    pub(super) tls: TlsFiles,
}

/// An admin listener, and the token for commands.
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    tls: TlsFiles,
    token: Option<String>,
}

/// A response.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl TargetOptions {
    /// Reads the configuration, if one is named.
    pub(super) fn target(self) -> Result<Target, String> {
        let token = std::env::var(TOKEN_VARIABLE).ok();
        let Some(path) = self.config else {
            let endpoint = self.admin.unwrap_or(Endpoint::Tcp(DEFAULT));
            return Ok(Target { endpoint, tls: self.tls, token });
        };
        let shown = path.display().to_string();
        let source = ConfigSource::file(path);
        let admin = source.parse(&source.read()?)?.admin;
        let endpoint = match (admin.socket, admin.address) {
            // Whoever can open the socket needs no token.
            (Some(path), _) => Endpoint::Unix(path),
            (None, Some(address)) if admin.tls.is_some() => Endpoint::of_tls(reachable(address)),
            (None, Some(address)) => Endpoint::Tcp(reachable(address)),
            (None, None) => return Err(format!("{shown}: admin is off, so the gateway takes no commands")),
        };
        // The token that may only read is better than none.
        let configured = admin.token.or(admin.read_token);
        let token = configured.map(|token| token.expose().to_owned()).or(token);
        Ok(Target { endpoint, tls: self.tls, token })
    }
}

impl Answer {
    /// The body as a line for a person.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        format!("{}: {}", self.status, bounded(text.trim_end()))
    }
}

impl Target {
    /// Sends a GET.
    pub(super) fn get(&self, path: &str) -> Result<Answer, String> {
        self.send("GET", path)
    }

    /// Sends a request without a body.
    pub(super) fn send(&self, method: &str, path: &str) -> Result<Answer, String> {
        let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
        let stream = self.connect(&format!("{method} {path} HTTP/1.1"), length, TIMEOUT)?;
        let mut answer = vec![];
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| self.failure(error))?;
        parse(&answer).ok_or_else(|| format!("{}: this is not a response of an admin listener", self.endpoint))
    }

    /// Sends a GET and passes each line of the response to `on_line` until the gateway ends it.
    pub(super) fn stream(&self, path: &str, mut on_line: impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
        // A response to HTTP/1.0 has no chunks, so its lines can be read as they are.
        let stream = self.connect(&format!("GET {path} HTTP/1.0"), "", STREAM_TIMEOUT)?;
        let mut reader = BufReader::new(stream);
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut head);
            if read.map_err(|error| self.failure(error))? == 0 || head.len() as u64 > LINE_BYTES_MAX {
                return Err(format!("{}: this is not a response of an admin listener", self.endpoint));
            }
        }
        let mut answer = parse(&head).ok_or_else(|| format!("{}: the response has no status", self.endpoint))?;
        if answer.status != 200 {
            // What the refusal says may be cut off; its status is known.
            let _ = reader.take(LINE_BYTES_MAX).read_to_end(&mut answer.body);
            return Err(answer.text());
        }
        loop {
            let mut line = vec![];
            let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if read.map_err(|error| self.failure(error))? == 0 {
                return Ok(());
            }
            on_line(String::from_utf8_lossy(&line).trim_end())?;
        }
    }

    fn connect(&self, request_line: &str, fields: &str, read_timeout: Duration) -> Result<Connection, String> {
        let fail = |error| self.failure(error);
        let mut stream = self.endpoint.connect(&self.tls, TIMEOUT, read_timeout)?;
        let token = self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let host = self.endpoint.host();
        let head = format!("{request_line}\r\nhost: {host}\r\nconnection: close\r\n{token}{fields}\r\n");
        stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).map_err(fail)?;
        Ok(stream)
    }

    fn failure(&self, error: std::io::Error) -> String {
        self.endpoint.failure(&error)
    }
}

/// An address that stands for all of a host is reached by its loopback address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let line = answer[..end].split(|byte| *byte == b'\r').next()?;
    let status = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
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
