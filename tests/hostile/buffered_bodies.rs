//! What filters and their clients make the gateway hold in memory: the bodies that it buffers for
//! filters, and the bodies that filters make. All are bounded, and none is held for longer than
//! it is needed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::wat::{module, with_manifest};
use harness::{Client, Gateway, Setup, wait_until};

const MIB: usize = 1 << 20;
const SET_BODY: &str = "(import \"witgate:gateway/request-edit@0.1.0\" \"set-body\" (func $body (param i32 i32)))";
const READ_BODY: &str = "(import \"witgate:gateway/request@0.1.0\" \"body\" (func $body (param i32)))";
const READS: &str = r#"{"name":"f","version":"1.0.0","request":{"body":"buffer","body_bytes_max":8388608}}"#;

/// A filter that answers with a body of `length` zeros.
fn answer_of(length: usize) -> Result<Vec<u8>> {
    module(
        "",
        &format!(
            "(drop (memory.grow (i32.const 130)))
             (i32.store (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 200))
             (i32.store (i32.const 1044) (i32.const 196608)) (i32.store (i32.const 1048) (i32.const {length}))
             (i32.const 1024)"
        ),
    )
}

fn gateway(limits: &str, keys: &str, wasm: &[u8]) -> Result<Gateway> {
    let yaml = format!(
        "limits: {{{limits}}}\ntrusted_proxies: [127.0.0.1]\nupstreams: {{echo: {{builtin: echo}}}}
filters: {{f: {{source: f.wasm, timeout: 2s{keys}}}}}\ntimeouts: {{filters: 3s}}
routes:
  - {{match: {{path: /f}}, filters: [f], upstream: echo}}
  - {{match: {{path: /other}}, filters: [f], upstream: echo}}
  - {{match: {{path: /plain}}, upstream: echo}}\n"
    );
    Setup::new(&yaml)?.workers(1).with("f.wasm", wasm)?.start()
}

/// The most memory that the gateway has had resident, in bytes.
fn peak(gateway: &Gateway) -> Result<usize> {
    resident(gateway, "VmHWM:")
}

fn resident(gateway: &Gateway, line: &str) -> Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let line = status.lines().find_map(|text| text.strip_prefix(line)).context("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
}

fn upload(gateway: &Gateway, client: &str, bytes: usize) -> Result<u16> {
    let client = format!("x-forwarded-for: {client}");
    Ok(gateway.client()?.send("POST", "/f", &[&client], &vec![b'x'; bytes])?.status)
}

/// An upload of which `bytes` bytes are sent, and then no more.
fn stuck_upload(gateway: &Gateway, path: &str, client: &str, bytes: usize) -> Result<Client> {
    let mut upload = gateway.client()?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: t\r\nx-forwarded-for: {client}\r\ntransfer-encoding: chunked\r\n\r\n{bytes:x}\r\n"
    );
    upload.write(head.as_bytes())?;
    upload.write(&vec![b'x'; bytes])?;
    upload.write(b"\r\n")?;
    Ok(upload)
}

#[test]
fn a_body_may_have_8_mib_whether_or_not_the_filter_reads_bodies() -> Result<()> {
    for manifest in [r#"{"name":"f","version":"1.0.0","request":{}}"#, READS] {
        for (length, status) in [(5 * MIB, 200), (8 * MIB, 200), (8 * MIB + 1, 502)] {
            let gateway = gateway("", "", &with_manifest(answer_of(length)?, manifest))?;
            let response = gateway.get("/f", &[])?;
            ensure!(response.status == status, "an answer of {length}: {}, {manifest}", response.status);
            ensure!(status != 200 || response.body.len() == length);
        }
        for (length, limits) in [(8 * MIB, 0.0), (8 * MIB + 1, 1.0)] {
            let body = format!(
                "(drop (memory.grow (i32.const 130))) (call $body (i32.const 196608) (i32.const {length})) (i32.const 0)"
            );
            let gateway = gateway("", "", &with_manifest(module(SET_BODY, &body)?, manifest))?;
            // The upstream echo takes smaller bodies only, so the status does not tell.
            gateway.get("/f", &[])?;
            let metric = "witgate_filter_errors_total{filter=\"f\",version=\"1.0.0\",kind=\"limit\"}";
            ensure!(gateway.metric(metric)? == limits, "a set body of {length}, {manifest}");
        }
    }
    Ok(())
}

#[test]
fn a_later_body_replaces_the_earlier_ones() -> Result<()> {
    let body = "(drop (memory.grow (i32.const 130)))
        (loop $l (call $body (i32.const 196608) (i32.const 8388608))
          (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
          (br_if $l (i32.lt_u (i32.load (i32.const 64)) (i32.const 12)))) (i32.const 0)";
    let gateway = gateway("", "", &module(SET_BODY, body)?)?;
    let before = peak(&gateway)?;
    gateway.get("/f", &[])?;
    let failures = gateway.logged("a filter failed");
    ensure!(failures.is_empty(), "{failures:?}");
    let grown = peak(&gateway)? - before;
    ensure!(grown < 60 * MIB, "12 bodies of 8 MiB: the gateway grew by {} MiB", grown / MIB);
    Ok(())
}

#[test]
fn long_texts_of_errors_are_dropped() -> Result<()> {
    let body = "(drop (memory.grow (i32.const 64)))
        (memory.fill (i32.const 196608) (i32.const 101) (i32.const 4000000))
        (i32.store (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 196608))
        (i32.store (i32.const 1032) (i32.const 4000000)) (i32.const 1024)";
    let gateway = gateway("", "", &module("", body)?)?;
    let mut client = gateway.client()?;
    let before = peak(&gateway)?;
    for _ in 0..30 {
        ensure!(client.get("/f", &[])?.status == 502);
    }
    ensure!(peak(&gateway)? - before < 40 * MIB);
    let longest = gateway.wait_logged("a filter failed", 1).iter().map(String::len).max().unwrap_or(0);
    ensure!(longest < 10_000, "a log line of {longest} bytes");
    Ok(())
}

#[test]
fn answers_count_until_they_are_sent() -> Result<()> {
    let limits = "buffered_bytes: 32MiB, buffered_bytes_per_client: 32MiB";
    let gateway = gateway(limits, "", &answer_of(4_000_000)?)?;
    let before = peak(&gateway)?;
    let mut readers = vec![];
    let mut statuses = vec![];
    for _ in 0..40 {
        let mut reader = gateway.client()?;
        reader.begin("GET", "/f", &[], b"")?;
        statuses.push(reader.read_head()?.status);
        readers.push(reader);
    }
    let sent = statuses.iter().filter(|status| **status == 200).count();
    ensure!((4..=8).contains(&sent), "{sent} answers of 4 MB are in 24 MiB: {statuses:?}");
    ensure!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    ensure!(peak(&gateway)? - before < 80 * MIB, "the gateway grew by {} MiB", (peak(&gateway)? - before) / MIB);
    ensure!(gateway.get("/plain", &[])?.status == 200, "other routes are served");
    drop(readers);
    wait_until("the bytes are returned", || gateway.get("/f", &[]).is_ok_and(|response| response.status == 200));
    Ok(())
}

#[test]
fn a_body_counts_as_it_arrives() -> Result<()> {
    let wasm = with_manifest(module(READ_BODY, "(i32.const 0)")?, READS);
    let gateway = gateway("buffered_bytes: 16MiB", "", &wasm)?;
    let _slow: Vec<_> = (0..20).map(|_| stuck_upload(&gateway, "/f", "192.0.2.1", 5000)).collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..5 {
        let status = upload(&gateway, "192.0.2.2", 100_000)?;
        ensure!(status == 200, "20 uploads of 5 kB lock others out: {status}");
    }
    Ok(())
}

#[test]
fn a_client_and_a_route_have_shares() -> Result<()> {
    let wasm = with_manifest(module(READ_BODY, "(i32.const 0)")?, READS);
    let limits = "buffered_bytes: 16MiB, buffered_bytes_per_client: 256KiB";
    let gateway = gateway(limits, "", &wasm)?;
    let _own = stuck_upload(&gateway, "/other", "192.0.2.1", 100_000)?;
    wait_until("the client has used its share", || {
        upload(&gateway, "192.0.2.1", 200_000).is_ok_and(|status| status == 503)
    });
    ensure!(upload(&gateway, "192.0.2.2", 200_000)? == 200, "another client has its own share");
    // The refused upload returns its bytes when its connection has been closed.
    wait_until("the rest of the share can be used", || {
        upload(&gateway, "192.0.2.1", 50_000).is_ok_and(|status| status == 200)
    });
    Ok(())
}

#[test]
fn the_operator_bounds_the_bodies_of_a_filter() -> Result<()> {
    let reads = with_manifest(module(READ_BODY, "(i32.const 0)")?, READS);
    let gateway = gateway("", ", body: 1KiB", &reads)?;
    ensure!(upload(&gateway, "192.0.2.1", 1024)? == 200);
    ensure!(upload(&gateway, "192.0.2.1", 1025)? == 413);
    for (length, status) in [(1024, 200), (1025, 502)] {
        let gateway = self::gateway("", ", body: 1KiB", &answer_of(length)?)?;
        ensure!(gateway.get("/f", &[])?.status == status, "an answer of {length}");
    }
    Ok(())
}

#[test]
fn the_memory_of_a_deep_stack_is_returned() -> Result<()> {
    let recursion = "(func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))";
    let gateway = gateway("", "", &module(recursion, "(drop (call $deep (i64.const 0))) (i32.const 0)")?)?;
    gateway.get("/plain", &[])?;
    let before = resident(&gateway, "VmRSS:")?;
    for _ in 0..3 {
        ensure!(gateway.get("/f", &[])?.status == 502);
    }
    ensure!(peak(&gateway)? - before > 12 * MIB, "the recursion uses the stack");
    wait_until("the stack is returned", || {
        resident(&gateway, "VmRSS:").is_ok_and(|after| after.saturating_sub(before) < 6 * MIB)
    });
    Ok(())
}
