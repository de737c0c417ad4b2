//! The attacks that run at the same time. Each is a row of the table; a new one needs a row in
//! [`attacks`], and perhaps a filter in [`filters`] with its route in [`routes`].
//!
//! All attackers have the address 127.0.0.2, so that the gateway can tell them from neighbours.
//! This module does not know: what is measured, what the gateway must still do.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use harness::frames::{NO_TABLE, PREFACE, block, frame, headers, kind, settings};
use harness::wat::{filter, module, with_manifest};
use harness::{Client, Gateway};

/// The address of all attackers.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// One attack. `run` repeats it until the target says that the time is over, and returns how often.
pub(super) struct Attack {
    /// The kind of fault that it looks for.
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    /// How many threads run it.
    pub(super) threads: usize,
    pub(super) run: fn(&Target) -> u64,
}

/// What attacks aim at.
pub(super) struct Target<'a> {
    pub(super) gateway: &'a Gateway,
    /// The plain-text listener.
    pub(super) address: SocketAddr,
    /// How many silent connections to open.
    pub(super) silent_connections: usize,
    pub(super) is_over: &'a AtomicBool,
}

pub(super) fn attacks() -> Vec<Attack> {
    let attack = |kind, name, threads, run| Attack { kind, name, threads, run };
    vec![
        attack("text", "traps in functions with long names", 2, |target| requests(target, "/trap")),
        attack("host memory", "the same body set again and again", 2, |target| requests(target, "/set-body")),
        attack("log", "lines of control characters", 2, |target| requests(target, "/log")),
        attack("log", "an endpoint that refuses connections", 2, |target| requests(target, "/refused")),
        attack("buffers", "slow chunked uploads that a filter buffers", 1, slow_uploads),
        attack("files", "FIFOs and endless files in place of a filter", 1, odd_files),
        attack("files", "manifests with long texts", 1, long_manifests),
        attack("thread", "filters that loop", 4, |target| requests(target, "/loop")),
        attack("thread", "filters that fill memory", 2, |target| requests(target, "/fill")),
        attack("clients", "silent connections", 1, silent_connections),
        attack("clients", "trickling HTTP/2 streams", 9, trickling_streams),
    ]
}

/// The filters of the attacks: name and component.
pub(super) fn filters() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let name = format!("_ZN{}3fooEv", "4stdsIS_IS_IS_IS_IS_I".repeat(9));
    let log = "(import \"witgate:gateway/log@0.1.0\" \"write\" (func $log (param i32 i32 i32)))";
    let body = "(import \"witgate:gateway/request-edit@0.1.0\" \"set-body\" (func $body (param i32 i32)))";
    let manifest = r#"{"name":"upload","version":"1.0.0","request":{"body":"buffer","body_bytes_max":8388608}}"#;
    Ok(vec![
        ("trap", module(&format!("(func $\"{name}\" (unreachable))"), &format!("(call $\"{name}\") (i32.const 0)"))?),
        ("set-body", module(body, "(loop $l (call $body (i32.const 0) (i32.const 196608)) (br $l)) (unreachable)")?),
        (
            "log",
            module(log, "(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 4096)) (br $l)) (unreachable)")?,
        ),
        ("loop", filter("(loop $l (br $l)) (unreachable)")?),
        (
            "fill",
            filter("(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 196608)) (br $l)) (unreachable)")?,
        ),
        ("upload", with_manifest(filter("(i32.const 0)")?, manifest)),
        ("bait", filter("(i32.const 0)")?),
        ("long", filter("(i32.const 0)")?),
    ])
}

/// A route for each filter, `/NAME`, and those without a filter.
pub(super) fn routes() -> Result<String> {
    let mut routes = String::from("  - {name: refused, match: {path: /refused}, upstream: refused}\n");
    for (name, _) in filters()? {
        routes.push_str(&format!("  - {{name: {name}, match: {{path: /{name}}}, filters: [{name}], upstream: u}}\n"));
    }
    Ok(routes)
}

impl Target<'_> {
    /// Repeats a step until the time is over. A step may fail, as the gateway may close.
    fn repeat(&self, mut step: impl FnMut() -> Result<()>) -> u64 {
        let mut count = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            if step().is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
            count += 1;
        }
        count
    }

    /// Waits, but not past the end.
    fn pause(&self, time: Duration) {
        let step = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() && !self.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(step.min(left));
            left = left.saturating_sub(step);
        }
    }

    fn connect(&self) -> Result<Client> {
        Client::connect_from(ATTACKER, self.address)
    }
}

/// One request after the other.
fn requests(target: &Target, path: &str) -> u64 {
    let mut client = None;
    target.repeat(|| {
        let mut connected = client.take().map_or_else(|| target.connect(), Ok)?;
        connected.get(path, &[])?;
        client = Some(connected);
        Ok(())
    })
}

fn slow_uploads(target: &Target) -> u64 {
    const HEAD: &[u8] = b"POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [b"40\r\n".as_slice(), &[b'x'; 64], b"\r\n"].concat();
    target.repeat(|| {
        let mut clients = (0..32).map(|_| target.connect()).collect::<Result<Vec<_>>>()?;
        clients.iter_mut().try_for_each(|client| client.write(HEAD))?;
        for _ in 0..80 {
            clients.retain_mut(|client| client.write(&chunk).is_ok());
            target.pause(Duration::from_millis(250));
        }
        Ok(())
    })
}

fn odd_files(target: &Target) -> u64 {
    let bait: PathBuf = target.gateway.path("bait.wasm");
    let valid = std::fs::read(&bait).unwrap_or_default();
    let count = target.repeat(|| {
        std::fs::remove_file(&bait)?;
        Command::new("mkfifo").arg(&bait).status()?;
        target.pause(Duration::from_millis(700));
        std::fs::remove_file(&bait)?;
        symlink("/dev/zero", &bait)?;
        target.pause(Duration::from_millis(700));
        Ok(())
    });
    let _ = std::fs::remove_file(&bait);
    let _ = std::fs::write(&bait, valid);
    count
}

fn long_manifests(target: &Target) -> u64 {
    let Ok(valid) = filter("(i32.const 0)") else { return 0 };
    let mut number = 0;
    target.repeat(|| {
        number += 1;
        let version = format!("1.0.0-{number}{}", "x".repeat(200_000));
        let manifest = format!("{{\"name\":\"long\",\"version\":\"{version}\",\"request\":{{}}}}");
        target.gateway.replace("long.wasm", with_manifest(valid.clone(), &manifest))?;
        target.pause(Duration::from_millis(300));
        Ok(())
    })
}

fn silent_connections(target: &Target) -> u64 {
    let mut connections = 0;
    target.repeat(|| {
        let mut silent = vec![];
        for _ in 0..target.silent_connections {
            silent.push(target.connect()?);
            if target.is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        connections += silent.len() as u64;
        target.pause(Duration::from_secs(12));
        Ok(())
    });
    connections
}

/// 120 uploads on one connection, each with a byte per second.
fn trickling_streams(target: &Target) -> u64 {
    let post = block([(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/length")]);
    let streams = || (0..120).map(|number| 2 * number + 1);
    let mut opening = [PREFACE, &settings(&[NO_TABLE])].concat();
    streams().for_each(|stream| opening.extend(headers(stream, &post, false)));
    let drip: Vec<u8> = streams().flat_map(|stream| frame(kind::DATA, 0, stream, b"x")).collect();
    target.repeat(|| {
        let mut client = target.connect()?;
        client.write(&opening)?;
        while !target.is_over.load(Ordering::Relaxed) {
            target.pause(Duration::from_secs(1));
            client.write(&drip)?;
        }
        Ok(())
    })
}
