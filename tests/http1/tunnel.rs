//! How a tunnel ends after an upgrade: resets, half-closed directions, and idle tunnels.

use std::net::Shutdown;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::Setup;

use super::raw::{RawConnection, ScriptedUpstream};
use super::websocket::{DEADLINE, SWITCHING_PROTOCOLS, frame, gateways, next_frame, read_bytes, upgrade, wait_idle};

#[test]
fn a_close_or_reset_of_one_side_closes_the_other() -> Result<()> {
    for reset in [false, true] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sender = std::sync::Mutex::new(sender);
        let upstream = ScriptedUpstream::start(move |connection| {
            connection.read_request()?;
            connection.send(SWITCHING_PROTOCOLS)?;
            let (_, payload) = next_frame(connection)?;
            if payload == b"go away" {
                connection.send(frame(0x81, false, b"cut he"))?;
                return if reset { connection.reset() } else { Ok(()) };
            }
            connection.send(frame(0x81, false, b"go"))?;
            let took = connection.wait_closed(DEADLINE)?;
            sender.lock().map(|sender| sender.send(took).is_ok()).ok();
            Ok(())
        })?;
        for (name, gateway) in gateways(&upstream)? {
            let (mut client, _) = upgrade(&gateway)?;
            client.send(frame(0x81, true, b"go away"))?;
            client.wait_closed(DEADLINE)?;
            wait_idle(&gateway);
            let (mut client, _) = upgrade(&gateway)?;
            client.send(frame(0x81, true, b"I go"))?;
            assert_eq!(next_frame(&mut client)?.1, b"go", "{name}");
            if reset {
                client.reset()?;
            }
            drop(client);
            let took = receiver
                .recv_timeout(DEADLINE)
                .with_context(|| format!("{name}, reset {reset}: the upstream's connection was not closed"))?;
            ensure!(took < Duration::from_secs(1), "{name}: closing the upstream's connection took {took:?}");
            wait_idle(&gateway);
        }
    }
    Ok(())
}

#[test]
fn a_tunnel_closes_one_direction_at_a_time() -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let upstream = ScriptedUpstream::start(move |connection| {
        connection.read_request()?;
        connection.send([SWITCHING_PROTOCOLS, "server first"].concat())?;
        connection.stream.shutdown(Shutdown::Write)?;
        connection.wait_closed(DEADLINE)?;
        sender.lock().map(|sender| sender.send(connection.bytes.clone()).is_ok()).ok();
        Ok(())
    })?;
    for (name, gateway) in gateways(&upstream)? {
        let (mut client, _) = upgrade(&gateway)?;
        client.wait_closed(DEADLINE)?;
        assert_eq!(client.bytes, b"server first", "{name}");
        client.send("client last")?;
        client.stream.shutdown(Shutdown::Write)?;
        assert_eq!(receiver.recv_timeout(DEADLINE)?, b"client last", "{name}");
        wait_idle(&gateway);
    }
    Ok(())
}

#[test]
fn a_half_closed_idle_tunnel_is_closed_after_tunnel_idle() -> Result<()> {
    // Either the upstream closes its direction and waits, or the client does so and the upstream
    // sends nothing.
    for upstream_closes in [true, false] {
        let upstream = ScriptedUpstream::start(move |connection| {
            connection.read_request()?;
            connection.send([SWITCHING_PROTOCOLS, "hello"].concat())?;
            if upstream_closes {
                connection.stream.shutdown(Shutdown::Write)?;
            }
            connection.wait_closed(DEADLINE)?;
            std::thread::park_timeout(DEADLINE * 2);
            Ok(())
        })?;
        let yaml = format!(
            "timeouts: {{tunnel_idle: 300ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{upstream: u}}]",
            upstream.address
        );
        let gateway = Setup::new(&yaml)?.start()?;
        let (mut client, _) = upgrade(&gateway)?;
        assert_eq!(read_bytes(&mut client, 5)?, b"hello");
        if !upstream_closes {
            client.stream.shutdown(Shutdown::Write)?;
        }
        wait_idle(&gateway);
    }
    Ok(())
}

#[test]
fn an_upgrade_to_any_protocol_opens_a_tunnel() -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let upstream = ScriptedUpstream::start(move |connection| {
        connection.read_request()?;
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nserver first")?;
        // The client closes its direction after its last bytes. The response still arrives.
        connection.wait_closed(DEADLINE)?;
        sender.lock().map(|sender| sender.send(connection.bytes.clone()).is_ok()).ok();
        connection.send("server last")
    })?;
    let yaml = format!("upstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{upstream: u}}]", upstream.address);
    let gateway = Setup::new(&yaml)?.start()?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n")?;
    assert_eq!(client.read_response("GET")?.status(), 101);
    assert_eq!(read_bytes(&mut client, 12)?, b"server first");
    client.send("client last")?;
    client.stream.shutdown(Shutdown::Write)?;
    assert_eq!(receiver.recv_timeout(DEADLINE)?, b"client last");
    client.wait_closed(DEADLINE)?;
    assert_eq!(client.bytes, b"server last");
    wait_idle(&gateway);
    Ok(())
}
