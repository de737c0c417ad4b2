//! WebSocket and other upgrades: a tunnel after an upstream's 101 and not before, byte for byte, with and without a filter on the route.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup};

use super::strict::Message;
use super::wire::{Peer, Wire};

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const LIMIT: Duration = Duration::from_secs(10);

/// Without and with a TypeScript filter on the route.
fn gateways(peer: &Peer) -> Result<Vec<(&'static str, Gateway)>> {
    let upstreams = format!("upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 1s}}}}", peer.address);
    let plain = format!("timeouts: {{filters: 50ms, idle: 1s}}\n{upstreams}\nroutes: [{{upstream: u}}]");
    let filtered = format!(
        "timeouts: {{filters: 900ms, idle: 1s}}\n{upstreams}\nfilters: {{f: {{source: f.wasm, timeout: 500ms, config: {{key: s3cret}}}}}}\nroutes: [{{filters: [f], upstream: u}}]"
    );
    let mut gateways = vec![("plain", Setup::new(&plain)?.start()?)];
    gateways.push(("filtered", Setup::new(&filtered)?.with_guest("f.wasm", "typescript/api-key")?.start()?));
    Ok(gateways)
}

fn ask(gateway: &Gateway, more: &str) -> Result<(Wire, Message)> {
    let mut client = Wire::connect(gateway.address)?;
    client.send(format!("GET /chat HTTP/1.1\r\nHost: t.test\r\nx-api-key: s3cret\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{more}"))?;
    let answer = client.response("GET")?;
    Ok((client, answer))
}

/// A frame as a client (masked) or a server sends it (RFC 6455, section 5.2).
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
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

/// The next so many bytes.
fn take(wire: &mut Wire, count: usize) -> Result<Vec<u8>> {
    while wire.bytes.len() < count {
        ensure!(!wire.closed, "closed after {} of {count} bytes", wire.bytes.len());
        wire.fill(LIMIT)?;
    }
    Ok(wire.bytes.drain(..count).collect())
}

/// The next frame: its first byte (FIN and opcode) and its payload.
fn next_frame(wire: &mut Wire) -> Result<(u8, Vec<u8>)> {
    let head = take(wire, 2)?;
    let length = match head[1] & 0x7f {
        126 => take(wire, 2)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        127 => take(wire, 8)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        length => usize::from(length),
    };
    let key = if head[1] & 0x80 == 0 { vec![0; 4] } else { take(wire, 4)? };
    let payload = take(wire, length)?;
    Ok((head[0], payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()))
}

/// A WebSocket server: echoes messages frame by frame, answers pings, returns a close and ends.
fn server() -> Result<Peer> {
    Peer::start(|wire| {
        let request = wire.request()?;
        for (name, value) in [
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            ensure!(request.field(name).is_some_and(|own| own.eq_ignore_ascii_case(value)), "{name} in {request:?}");
        }
        ensure!(request.field("connection").is_some_and(|own| own.eq_ignore_ascii_case("upgrade")), "{request:?}");
        wire.send(SWITCH)?;
        loop {
            let (first, payload) = next_frame(wire)?;
            match first & 0x0f {
                0x8 => {
                    wire.send(frame(0x88, false, &payload))?;
                    return Ok(());
                }
                0x9 => wire.send(frame(0x8a, false, &payload))?,
                _ => wire.send(frame(first, false, &payload))?,
            }
        }
    })
}

fn quiet(gateway: &Gateway) {
    harness::wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
}

#[test]
fn messages_pass_both_ways() -> Result<()> {
    let peer = server()?;
    for (name, gateway) in gateways(&peer)? {
        let (mut client, answer) = ask(&gateway, "")?;
        let fields = ["upgrade", "connection", "sec-websocket-accept"]
            .map(|field| answer.field(field).map(str::to_ascii_lowercase));
        let wanted = ["websocket", "upgrade", "s3pplmbitxaq9kygzzhzrbk+xoo="].map(|value| Some(value.to_owned()));
        assert_eq!((answer.status(), fields), (101, wanted), "{name}");
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
        client.until_closed(LIMIT)?;
        quiet(&gateway);
    }
    Ok(())
}

#[test]
fn close_codes_and_reasons_pass() -> Result<()> {
    let peer = server()?;
    for (name, gateway) in gateways(&peer)? {
        for code in [1000_u16, 1001, 1002, 1009, 1011, 3000, 4999] {
            let (mut client, _) = ask(&gateway, "")?;
            let payload = [&code.to_be_bytes()[..], b"because"].concat();
            client.send(frame(0x88, true, &payload))?;
            assert_eq!(next_frame(&mut client)?, (0x88, payload), "{name} {code}");
            client.until_closed(LIMIT)?;
        }
        quiet(&gateway);
    }
    Ok(())
}

#[test]
fn a_silent_tunnel_is_not_cut_by_the_timeouts_of_requests() -> Result<()> {
    let peer = server()?;
    for (name, gateway) in gateways(&peer)? {
        let (mut client, _) = ask(&gateway, "")?;
        // Longer than the upstream's timeout and `timeouts.idle`.
        client.fill(Duration::from_millis(1500))?;
        ensure!(!client.closed && client.bytes.is_empty(), "{name}: cut");
        client.send(frame(0x81, true, b"still here"))?;
        assert_eq!(next_frame(&mut client)?.1, b"still here", "{name}");
    }
    Ok(())
}

#[test]
fn an_abrupt_end_of_one_side_ends_the_other() -> Result<()> {
    for reset in [false, true] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sender = std::sync::Mutex::new(sender);
        let peer = Peer::start(move |wire| {
            wire.request()?;
            wire.send(SWITCH)?;
            let (_, payload) = next_frame(wire)?;
            if payload == b"go away" {
                wire.send(frame(0x81, false, b"cut he"))?;
                return if reset { wire.reset() } else { Ok(()) };
            }
            wire.send(frame(0x81, false, b"go"))?;
            let took = wire.until_closed(LIMIT)?;
            sender.lock().map(|sender| sender.send(took).is_ok()).ok();
            Ok(())
        })?;
        for (name, gateway) in gateways(&peer)? {
            let (mut client, _) = ask(&gateway, "")?;
            client.send(frame(0x81, true, b"go away"))?;
            client.until_closed(LIMIT)?;
            quiet(&gateway);
            let (mut client, _) = ask(&gateway, "")?;
            client.send(frame(0x81, true, b"I go"))?;
            assert_eq!(next_frame(&mut client)?.1, b"go", "{name}");
            if reset {
                client.reset()?;
            }
            drop(client);
            let took = receiver
                .recv_timeout(LIMIT)
                .with_context(|| format!("{name}, reset {reset}: the upstream saw no end"))?;
            ensure!(took < Duration::from_secs(1), "{name}: the upstream's end took {took:?}");
            quiet(&gateway);
        }
    }
    Ok(())
}

#[test]
fn bytes_beside_the_101_are_not_lost() -> Result<()> {
    let peer = Peer::start(|wire| {
        wire.request()?;
        let greeting = frame(0x81, false, b"greeting");
        wire.send([SWITCH.as_bytes(), &greeting].concat())?;
        let (first, payload) = next_frame(wire)?;
        wire.send(frame(first, false, &payload))?;
        wire.until_closed(LIMIT).map(drop)
    })?;
    for (name, gateway) in gateways(&peer)? {
        let (mut client, answer) = ask(&gateway, "")?;
        assert_eq!((answer.status(), next_frame(&mut client)?.1), (101, b"greeting".to_vec()), "{name}");
        client.send(frame(0x81, true, b"and back"))?;
        assert_eq!(next_frame(&mut client)?.1, b"and back", "{name}");
    }
    Ok(())
}

#[test]
fn an_upstream_that_does_not_upgrade_answers_a_request() -> Result<()> {
    for status in [200_u16, 403, 426] {
        let peer = Peer::start(move |wire| {
            loop {
                wire.request()?;
                wire.send(format!(
                    "HTTP/1.1 {status} X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno"
                ))?;
            }
        })?;
        for (name, gateway) in gateways(&peer)? {
            let (mut client, answer) = ask(&gateway, "")?;
            assert_eq!((answer.status(), &answer.body[..]), (status, &b"no"[..]), "{name}");
            // No tunnel: what comes next is a request, or the connection is closed.
            client.send("GET / HTTP/1.1\r\nHost: t.test\r\nx-api-key: s3cret\r\n\r\n").ok();
            if let Ok(next) = client.response("GET") {
                assert_eq!(next.status(), status, "{name}");
            }
            quiet(&gateway);
        }
    }
    Ok(())
}

#[test]
fn a_101_of_another_protocol_or_none_makes_no_tunnel() -> Result<()> {
    for upgrade in ["Connection: Upgrade\r\nUpgrade: other\r\n", "", "Connection: Upgrade\r\nUpgrade: h2c\r\n"] {
        let peer = Peer::start(move |wire| {
            wire.request()?;
            wire.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\n"))?;
            wire.until_closed(LIMIT).map(drop)
        })?;
        for (name, gateway) in gateways(&peer)? {
            assert_eq!(ask(&gateway, "")?.1.status(), 502, "{name} {upgrade:?}");
        }
    }
    Ok(())
}

#[test]
fn a_client_without_the_key_gets_no_tunnel() -> Result<()> {
    let peer = server()?;
    let gateways = gateways(&peer)?;
    let mut client = Wire::connect(gateways[1].1.address)?;
    client.send("GET /chat HTTP/1.1\r\nHost: t.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")?;
    assert_eq!((client.response("GET")?.status(), peer.connections()), (401, 0));
    Ok(())
}

#[test]
fn a_tunnel_closes_one_direction_at_a_time() -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let peer = Peer::start(move |wire| {
        wire.request()?;
        wire.send([SWITCH, "server first"].concat())?;
        wire.stream.shutdown(std::net::Shutdown::Write)?;
        wire.until_closed(LIMIT)?;
        sender.lock().map(|sender| sender.send(wire.bytes.clone()).is_ok()).ok();
        Ok(())
    })?;
    for (name, gateway) in gateways(&peer)? {
        let (mut client, _) = ask(&gateway, "")?;
        client.until_closed(LIMIT)?;
        assert_eq!(client.bytes, b"server first", "{name}");
        client.send("client last")?;
        client.stream.shutdown(std::net::Shutdown::Write)?;
        assert_eq!(receiver.recv_timeout(LIMIT)?, b"client last", "{name}");
        quiet(&gateway);
    }
    Ok(())
}

#[test]
fn a_tunnel_that_is_half_closed_and_silent_ends() -> Result<()> {
    // The upstream ends its side and waits; or the client does, and the upstream neither answers nor ends.
    for upstream_ends in [true, false] {
        let peer = Peer::start(move |wire| {
            wire.request()?;
            wire.send([SWITCH, "hello"].concat())?;
            if upstream_ends {
                wire.stream.shutdown(std::net::Shutdown::Write)?;
            }
            wire.until_closed(LIMIT)?;
            std::thread::park_timeout(LIMIT * 2);
            Ok(())
        })?;
        let yaml = format!(
            "timeouts: {{tunnel_idle: 300ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{upstream: u}}]",
            peer.address
        );
        let gateway = Setup::new(&yaml)?.start()?;
        let (mut client, _) = ask(&gateway, "")?;
        assert_eq!(take(&mut client, 5)?, b"hello");
        if !upstream_ends {
            client.stream.shutdown(std::net::Shutdown::Write)?;
        }
        quiet(&gateway);
    }
    Ok(())
}

#[test]
fn any_protocol_is_a_tunnel_after_its_101() -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let peer = Peer::start(move |wire| {
        wire.request()?;
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nserver first")?;
        // The client ends its side: what it sent comes before, and what is sent back still arrives.
        wire.until_closed(LIMIT)?;
        sender.lock().map(|sender| sender.send(wire.bytes.clone()).is_ok()).ok();
        wire.send("server last")
    })?;
    let yaml = format!("upstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{upstream: u}}]", peer.address);
    let gateway = Setup::new(&yaml)?.start()?;
    let mut client = Wire::connect(gateway.address)?;
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n")?;
    assert_eq!(client.response("GET")?.status(), 101);
    assert_eq!(take(&mut client, 12)?, b"server first");
    client.send("client last")?;
    client.stream.shutdown(std::net::Shutdown::Write)?;
    assert_eq!(receiver.recv_timeout(LIMIT)?, b"client last");
    client.until_closed(LIMIT)?;
    assert_eq!(client.bytes, b"server last");
    quiet(&gateway);
    Ok(())
}
