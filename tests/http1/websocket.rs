//! WebSocket (RFC 6455): messages pass in both directions after a 101, with and without a filter on
//! the route. Also contains the frame helpers that the tunnel tests use.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::strict_http1::Message;
use harness::{Gateway, Setup};

use super::raw::{RawConnection, ScriptedUpstream};

/// A 101 that accepts the key of `upgrade`.
pub(crate) const SWITCHING_PROTOCOLS: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Limit for each wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Two gateways to this upstream: one without filters, one with a TypeScript filter on the route.
pub(crate) fn gateways(upstream: &ScriptedUpstream) -> Result<Vec<(&'static str, Gateway)>> {
    let upstreams = format!("upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 1s}}}}", upstream.address);
    let plain = format!("timeouts: {{filters: 50ms, idle: 1s}}\n{upstreams}\nroutes: [{{upstream: u}}]");
    let filtered = format!(
        "timeouts: {{filters: 900ms, idle: 1s}}\n{upstreams}\nfilters: {{f: {{source: f.wasm, timeout: 500ms, config: {{key: s3cret}}}}}}\nroutes: [{{filters: [f], upstream: u}}]"
    );
    let mut gateways = vec![("plain", Setup::new(&plain)?.start()?)];
    gateways.push(("filtered", Setup::new(&filtered)?.with_guest("f.wasm", "typescript/api-key")?.start()?));
    Ok(gateways)
}

/// Requests a WebSocket, and returns the connection and the response.
pub(crate) fn upgrade(gateway: &Gateway) -> Result<(RawConnection, Message)> {
    let mut client = RawConnection::connect(gateway.address)?;
    client.send("GET /chat HTTP/1.1\r\nHost: t.test\r\nx-api-key: s3cret\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")?;
    let response = client.read_response("GET")?;
    Ok((client, response))
}

/// Builds a WebSocket frame (RFC 6455, section 5.2). Clients send masked frames.
///
/// `first` is the FIN bit and the opcode.
pub(crate) fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(mask | u8::try_from(length).unwrap_or(0)),
        length @ 126..65536 => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
        }
        length => {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend_from_slice(&key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// Reads exactly `count` bytes.
pub(crate) fn read_bytes(connection: &mut RawConnection, count: usize) -> Result<Vec<u8>> {
    while connection.bytes.len() < count {
        ensure!(!connection.closed, "closed after {} of {count} bytes", connection.bytes.len());
        connection.receive(DEADLINE)?;
    }
    Ok(connection.bytes.drain(..count).collect())
}

/// Reads a frame. Returns its first byte (FIN bit and opcode) and its payload.
pub(crate) fn next_frame(connection: &mut RawConnection) -> Result<(u8, Vec<u8>)> {
    let head = read_bytes(connection, 2)?;
    let length = match head[1] & 0x7f {
        126 => read_bytes(connection, 2)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        127 => read_bytes(connection, 8)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        length => usize::from(length),
    };
    let key = if head[1] & 0x80 == 0 { vec![0; 4] } else { read_bytes(connection, 4)? };
    let payload = read_bytes(connection, length)?;
    Ok((head[0], payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()))
}

/// A WebSocket server that echoes each frame, replies to pings, and returns a close frame and
/// closes.
fn server() -> Result<ScriptedUpstream> {
    ScriptedUpstream::start(|connection| {
        let request = connection.read_request()?;
        for (name, value) in [
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            ensure!(request.field(name).is_some_and(|own| own.eq_ignore_ascii_case(value)), "{name} in {request:?}");
        }
        ensure!(request.field("connection").is_some_and(|own| own.eq_ignore_ascii_case("upgrade")), "{request:?}");
        connection.send(SWITCHING_PROTOCOLS)?;
        loop {
            let (first, payload) = next_frame(connection)?;
            match first & 0x0f {
                0x8 => {
                    connection.send(frame(0x88, false, &payload))?;
                    return Ok(());
                }
                0x9 => connection.send(frame(0x8a, false, &payload))?,
                _ => connection.send(frame(first, false, &payload))?,
            }
        }
    })
}

/// Waits until no request or tunnel is in flight.
pub(crate) fn wait_idle(gateway: &Gateway) {
    harness::wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
}

#[test]
fn messages_pass_both_ways() -> Result<()> {
    let upstream = server()?;
    for (name, gateway) in gateways(&upstream)? {
        let (mut client, response) = upgrade(&gateway)?;
        let fields = ["upgrade", "connection", "sec-websocket-accept"]
            .map(|field| response.field(field).map(str::to_ascii_lowercase));
        let wanted = ["websocket", "upgrade", "s3pplmbitxaq9kygzzhzrbk+xoo="].map(|value| Some(value.to_owned()));
        assert_eq!((response.status(), fields), (101, wanted), "{name}");
        let large: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
        let medium = vec![7; 40_000];
        let messages: [(&str, u8, &[u8], u8); 9] = [
            ("text", 0x81, b"hello", 0x81),
            ("empty", 0x81, b"", 0x81),
            ("binary", 0x82, &[0, 255, 13, 10], 0x82),
            ("ping", 0x89, b"are you there", 0x8a),
            ("first fragment", 0x01, b"one ", 0x01),
            ("ping between fragments", 0x89, b"", 0x8a),
            ("last fragment", 0x80, b"two", 0x80),
            ("40 kB", 0x82, &medium, 0x82),
            ("1 MB", 0x82, &large, 0x82),
        ];
        for (what, first, payload, back) in messages {
            client.send(frame(first, true, payload))?;
            let got = next_frame(&mut client)?;
            ensure!(got.0 == back && got.1 == payload, "{name}: {what}: {:02x}, {} bytes", got.0, got.1.len());
        }
        client.send(frame(0x88, true, &1000_u16.to_be_bytes()))?;
        assert_eq!(next_frame(&mut client)?, (0x88, vec![3, 232]), "{name}");
        client.wait_closed(DEADLINE)?;
        wait_idle(&gateway);
    }
    Ok(())
}

#[test]
fn close_codes_and_reasons_pass() -> Result<()> {
    let upstream = server()?;
    for (name, gateway) in gateways(&upstream)? {
        for code in [1000_u16, 1001, 1002, 1009, 1011, 3000, 4999] {
            let (mut client, _) = upgrade(&gateway)?;
            let payload = [&code.to_be_bytes()[..], b"because"].concat();
            client.send(frame(0x88, true, &payload))?;
            assert_eq!(next_frame(&mut client)?, (0x88, payload), "{name} {code}");
            client.wait_closed(DEADLINE)?;
        }
        wait_idle(&gateway);
    }
    Ok(())
}

#[test]
fn a_silent_tunnel_is_not_closed_by_request_timeouts() -> Result<()> {
    let upstream = server()?;
    for (name, gateway) in gateways(&upstream)? {
        let (mut client, _) = upgrade(&gateway)?;
        // Longer than the upstream's timeout and `timeouts.idle`.
        client.receive(Duration::from_millis(1500))?;
        ensure!(!client.closed && client.bytes.is_empty(), "{name}: the tunnel was closed");
        client.send(frame(0x81, true, b"still here"))?;
        assert_eq!(next_frame(&mut client)?.1, b"still here", "{name}");
    }
    Ok(())
}

#[test]
fn bytes_sent_together_with_the_101_are_forwarded() -> Result<()> {
    let upstream = ScriptedUpstream::start(|connection| {
        connection.read_request()?;
        let greeting = frame(0x81, false, b"greeting");
        connection.send([SWITCHING_PROTOCOLS.as_bytes(), &greeting].concat())?;
        let (first, payload) = next_frame(connection)?;
        connection.send(frame(first, false, &payload))?;
        connection.wait_closed(DEADLINE).map(drop)
    })?;
    for (name, gateway) in gateways(&upstream)? {
        let (mut client, response) = upgrade(&gateway)?;
        assert_eq!((response.status(), next_frame(&mut client)?.1), (101, b"greeting".to_vec()), "{name}");
        client.send(frame(0x81, true, b"and back"))?;
        assert_eq!(next_frame(&mut client)?.1, b"and back", "{name}");
    }
    Ok(())
}

#[test]
fn a_response_other_than_101_opens_no_tunnel() -> Result<()> {
    for status in [200_u16, 403, 426] {
        let upstream = ScriptedUpstream::start(move |connection| {
            loop {
                connection.read_request()?;
                connection.send(format!(
                    "HTTP/1.1 {status} X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno"
                ))?;
            }
        })?;
        for (name, gateway) in gateways(&upstream)? {
            let (mut client, response) = upgrade(&gateway)?;
            assert_eq!((response.status(), &response.body[..]), (status, &b"no"[..]), "{name}");
            // Without a tunnel, the next bytes are a request, or the connection is closed.
            client.send("GET / HTTP/1.1\r\nHost: t.test\r\nx-api-key: s3cret\r\n\r\n").ok();
            if let Ok(next) = client.read_response("GET") {
                assert_eq!(next.status(), status, "{name}");
            }
            wait_idle(&gateway);
        }
    }
    Ok(())
}

#[test]
fn a_101_without_the_requested_protocol_gets_502() -> Result<()> {
    for fields in ["Connection: Upgrade\r\nUpgrade: other\r\n", "", "Connection: Upgrade\r\nUpgrade: h2c\r\n"] {
        let upstream = ScriptedUpstream::start(move |connection| {
            connection.read_request()?;
            connection.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"))?;
            connection.wait_closed(DEADLINE).map(drop)
        })?;
        for (name, gateway) in gateways(&upstream)? {
            assert_eq!(upgrade(&gateway)?.1.status(), 502, "{name} {fields:?}");
        }
    }
    Ok(())
}

/// RFC 6455, section 4.1: such a response is not from a WebSocket server.
#[test]
fn a_101_that_does_not_answer_the_key_gets_502() -> Result<()> {
    let right = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for accept in [String::new(), right.replace("s3p", "S3p"), right.repeat(2)] {
        let fields = accept.clone();
        let upstream = ScriptedUpstream::start(move |connection| {
            connection.read_request()?;
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
            connection.send(format!("{head}{fields}\r\n"))?;
            connection.wait_closed(DEADLINE).map(drop)
        })?;
        for (name, gateway) in gateways(&upstream)? {
            assert_eq!(upgrade(&gateway)?.1.status(), 502, "{name} {accept:?}");
            gateway.wait_logged("sec-websocket-accept", 1);
        }
    }
    Ok(())
}

#[test]
fn a_filter_that_rejects_the_request_prevents_the_tunnel() -> Result<()> {
    let upstream = server()?;
    let gateways = gateways(&upstream)?;
    let mut client = RawConnection::connect(gateways[1].1.address)?;
    client.send("GET /chat HTTP/1.1\r\nHost: t.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")?;
    assert_eq!((client.read_response("GET")?.status(), upstream.connections()), (401, 0));
    Ok(())
}
