//! HTTP/2 upstreams that go silent without closing, and upstreams whose streams are used up.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::client::{connect, fetch, request, run, wait_until};
use super::start_gateway;
use super::upstream::H2Upstream;

/// Forwards connections to an upstream. After [`BlackHole::swallow`] the connections of that moment
/// stay open and carry nothing more; new ones work.
struct BlackHole {
    address: SocketAddr,
    generation: Arc<AtomicUsize>,
}

impl BlackHole {
    fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let hole = Self { address: listener.local_addr()?, generation: Arc::default() };
        let generation = hole.generation.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(to) else { return };
                let born = generation.load(Ordering::SeqCst);
                for (from, to) in [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))] {
                    let (Ok(from), Ok(to), generation) = (from, to, generation.clone()) else { return };
                    std::thread::spawn(move || copy(from, to, || generation.load(Ordering::SeqCst) == born));
                }
            }
        });
        Ok(hole)
    }

    fn swallow(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, is_alive: impl Fn() -> bool) {
    let mut block = [0; 16384];
    loop {
        match from.read(&mut block) {
            Ok(read) if !is_alive() => {
                if read == 0 {
                    // Both ends stay open: the peer sees no FIN.
                    std::mem::forget((from, to));
                    return;
                }
            }
            Ok(0) | Err(_) => return drop(to.shutdown(std::net::Shutdown::Write)),
            Ok(read) => {
                if to.write_all(&block[..read]).is_err() {
                    return;
                }
            }
        }
    }
}

fn yaml(address: SocketAddr, settings: &str) -> String {
    format!(
        "timeouts: {{filters: 100ms}}\nupstreams: {{u: {{endpoints: [\"http://{address}\"], protocol: h2, {settings}}}}}\nroutes: [{{upstream: u}}]"
    )
}

/// Sends a GET each 50 ms for `time` while the first connection is swallowed. Returns the number of
/// requests that failed and the time to the first success.
fn outage(settings: &str, time: Duration) -> Result<(usize, usize, Duration)> {
    let upstream = H2Upstream::start()?;
    let hole = BlackHole::start(upstream.address)?;
    let gateway = start_gateway(&yaml(hole.address, settings))?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        ensure!(fetch(&send, request("GET", "/"), None).await?.text() == "ok");
        hole.swallow();
        let began = Instant::now();
        let mut running = vec![];
        while began.elapsed() < time {
            let send = send.clone();
            running.push(tokio::spawn(async move {
                let status = fetch(&send, request("GET", "/"), None).await.map(|response| response.status());
                (status.ok(), Instant::now())
            }));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (mut lost, mut recovered) = (0, None);
        let sent = running.len();
        for one in running {
            match one.await? {
                (Some(200), at) => recovered = recovered.min(Some(at)).or(Some(at)),
                _ => lost += 1,
            }
        }
        let recovered = recovered.map_or(Duration::MAX, |at| at - began);
        println!("{settings}: {lost} of {sent} requests lost, recovered after {recovered:?}");
        Ok((sent, lost, recovered))
    })
}

#[test]
fn a_silent_upstream_is_found_by_ping_and_loses_no_idempotent_request() -> Result<()> {
    let (_, lost, recovered) =
        outage("timeout: 5s, http2: {ping_interval: 1s, ping_timeout: 200ms}", Duration::from_secs(2))?;
    ensure!(lost == 0, "{lost} requests were lost");
    ensure!(recovered < Duration::from_secs(2), "it took {recovered:?} to recover");
    Ok(())
}

#[test]
fn a_request_that_times_out_on_a_silent_connection_ends_its_use() -> Result<()> {
    let (sent, lost, recovered) =
        outage("timeout: 400ms, http2: {ping_interval: off, ping_timeout: 100ms}", Duration::from_secs(2))?;
    ensure!(recovered < Duration::from_millis(700), "it took {recovered:?} to recover");
    ensure!(lost <= sent / 4, "{lost} of {sent} requests were lost");
    Ok(())
}

#[test]
fn an_upstream_that_sends_no_settings_is_left_for_another() -> Result<()> {
    let upstream = H2Upstream::start()?;
    let hole = BlackHole::start(upstream.address)?;
    // A listener whose connections nobody accepts.
    let mute = TcpListener::bind("127.0.0.1:0")?;
    let settings = format!(
        "endpoints: [\"http://{}\", \"http://{}\"], protocol: h2, timeout: 10s, connect_timeout: 300ms",
        mute.local_addr()?,
        hole.address
    );
    let gateway = start_gateway(&format!("upstreams: {{u: {{{settings}}}}}\nroutes: [{{upstream: u}}]"))?;
    for _ in 0..2 {
        let began = Instant::now();
        let status = gateway.get("/", &[])?.status;
        ensure!(status == 200 && began.elapsed() < Duration::from_secs(2), "{status} after {:?}", began.elapsed());
    }
    Ok(())
}

#[test]
fn used_up_streams_open_more_connections_then_requests_wait_and_get_503() -> Result<()> {
    let upstream = H2Upstream::start_with(2)?;
    let settings = "timeout: 20s, connect_timeout: 300ms, retries: {attempts: 0}, http2: {connections: 2}";
    let gateway = start_gateway(&yaml(upstream.address, settings))?;
    run(async {
        let (send, _driver) = connect(gateway.address).await?;
        let mut open = vec![];
        for _ in 0..4 {
            open.push(send.clone().ready().await?.send_request(request("GET", "/hang"), true)?);
        }
        wait_until("all streams are in use", || upstream.requests() == 4).await?;
        ensure!(upstream.connections() == 2, "{} connections instead of 2", upstream.connections());
        let began = Instant::now();
        let response = fetch(&send, request("GET", "/"), None).await?;
        let waited = began.elapsed();
        ensure!(response.status() == 503, "{} {}", response.status(), response.text());
        ensure!(waited >= Duration::from_millis(250) && waited < Duration::from_secs(2), "it waited {waited:?}");
        ensure!(response.head.headers().contains_key("retry-after"), "{:?}", response.head);
        // A request that waits gets the first stream that ends.
        let waiting = tokio::spawn({
            let send = send.clone();
            async move { fetch(&send, request("GET", "/"), None).await.map(|response| response.status()) }
        });
        tokio::task::yield_now().await;
        open.truncate(3);
        let status = waiting.await??;
        ensure!(status == 200, "the request that waited got {status}");
        ensure!(upstream.connections() == 2);
        Ok(())
    })
}
