//! A thousand clients that ask for large bodies and read nothing: the gateway holds a bounded
//! number of bytes for each, and serves other clients meanwhile.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::frames::{NO_TABLE, PREFACE, frame, get, headers, kind, settings};
use harness::{Setup, Upstream, wait_up_to};

use super::measure::memory;
use super::slow::{connect_with_small_buffer, raise_file_limit};

const CONNECTIONS: usize = 500;
const HTTP2_CONNECTIONS: usize = 5;
const STREAMS: u32 = 100;
/// Bytes that each of them asks for.
const BODY: &str = "/bytes/30000000";
/// For each client: its exchange, its connections, and what was read of its body. In addition to
/// the large buffers of a thread, which are 4 MiB.
const GROWTH_MAX: u64 = (4 << 20) + 1000 * (72 << 10);

#[test]
fn the_memory_of_a_thousand_slow_readers_is_bounded() -> Result<()> {
    raise_file_limit()?;
    let _measuring = super::MEASURING.lock();
    let upstream = Upstream::start()?;
    let yaml = format!(
        "limits: {{in_flight: 4096, in_flight_per_client: 4096, min_bytes_per_second: 0}}\nupstreams: {{u: {}}}\nroutes: [{{upstream: u}}]",
        upstream.yaml().replace("timeout: 2s", "timeout: 60s")
    );
    let gateway = Setup::new(&yaml)?.workers(1).level("error").start()?;
    for _ in 0..50 {
        gateway.get("/bytes/1000000", &[])?;
    }
    // 5 resets the peak to the resident memory (proc(5), clear_refs).
    fs::write(format!("/proc/{}/clear_refs", gateway.id()), "5")?;
    let before = memory(&gateway, "VmRSS:")?;
    let mut readers: Vec<TcpStream> = vec![];
    for _ in 0..CONNECTIONS {
        let mut stream = connect_with_small_buffer(gateway.address)?;
        stream.write_all(format!("GET {BODY} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes())?;
        readers.push(stream);
    }
    for _ in 0..HTTP2_CONNECTIONS {
        let mut stream = connect_with_small_buffer(gateway.address)?;
        // The windows allow all bytes: only the socket is full.
        let opening = [
            PREFACE,
            &settings(&[NO_TABLE, (4, 1 << 30)]),
            &frame(kind::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()),
        ];
        stream.write_all(&opening.concat())?;
        for number in 0..STREAMS {
            stream.write_all(&headers(2 * number + 1, &get(BODY), true))?;
        }
        readers.push(stream);
    }
    let all = (CONNECTIONS + HTTP2_CONNECTIONS * STREAMS as usize) as f64;
    wait_up_to(Duration::from_secs(60), "all bodies have begun", || {
        gateway.metric("witgate_in_flight").is_ok_and(|count| count >= all)
    });
    let mut last = 0;
    wait_up_to(Duration::from_secs(60), "the memory stays as it is", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = memory(&gateway, "VmRSS:").unwrap_or_default();
        std::mem::replace(&mut last, now).abs_diff(now) < 256 << 10
    });
    let body = gateway.get("/bytes/3000000", &[])?.body;
    ensure!(body.len() == 3_000_000, "a client that reads got {} bytes", body.len());
    let growth = memory(&gateway, "VmHWM:")?.saturating_sub(before);
    println!("{all} slow readers: {} KiB each", (growth >> 10) / all as u64);
    ensure!(growth <= GROWTH_MAX, "memory grew by {} KiB", growth >> 10);
    Ok(())
}
