//! Restart by a new process and reload under load: no client notices. And what happens when the new process is no good: nothing.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::wat::replying;
use harness::{Client, Gateway, Setup, Upstream, wait_until};
use rustix::process::Signal;

const CONNECTIONS: usize = 64;
const YAML: &str =
    "filters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";

fn start() -> Result<Gateway> {
    Setup::new(YAML)?.with("f.wasm", replying(200, None, "one")?)?.start()
}

fn serves(gateway: &Gateway) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == "one")
}

/// What the load saw.
#[derive(Default)]
struct Seen {
    kept: AtomicUsize,
    fresh: AtomicUsize,
    /// The gateway closed an idle connection while a request was on its way: RFC 9112, section 9.3.1 lets a client send it again.
    crossed: AtomicUsize,
    stop: AtomicBool,
}

impl Seen {
    fn total(&self) -> usize {
        self.kept.load(Ordering::Relaxed) + self.fresh.load(Ordering::Relaxed)
    }
}

/// Keeps 64 connections busy and opens a new one every few milliseconds while `work` runs. Any answer but 200, any connection that is refused or reset with
/// a request that may have been read is a failure.
fn under_load(address: SocketAddr, work: impl FnOnce(&Seen) -> Result<()>) -> Result<Seen> {
    let seen = Seen::default();
    std::thread::scope(|scope| -> Result<()> {
        let mut load: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| keep_alive(address, &seen))).collect();
        load.push(scope.spawn(|| new_connections(address, &seen)));
        wait_until("the load runs", || seen.total() > 2 * CONNECTIONS);
        let done = work(&seen);
        seen.stop.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().unwrap()?;
        }
        done
    })?;
    Ok(seen)
}

fn keep_alive(address: SocketAddr, seen: &Seen) -> Result<()> {
    let mut client = Client::connect(address)?;
    let mut is_fresh = true;
    while !seen.stop.load(Ordering::Relaxed) {
        let sent = client.begin("GET", "/", &[], b"");
        if !is_fresh && (sent.is_err() || !client.answers()) {
            seen.crossed.fetch_add(1, Ordering::Relaxed);
            (client, is_fresh) = (Client::connect(address)?, true);
            continue;
        }
        let response = client.read(false).context("on a connection that is kept")?;
        ensure!(response.status == 200, "status {}", response.status);
        seen.kept.fetch_add(1, Ordering::Relaxed);
        is_fresh = response.header("connection") == Some("close");
        if is_fresh {
            client = Client::connect(address)?;
        }
    }
    Ok(())
}

fn new_connections(address: SocketAddr, seen: &Seen) -> Result<()> {
    while !seen.stop.load(Ordering::Relaxed) {
        let response = Client::connect(address)?.get("/", &[]).context("on a new connection")?;
        ensure!(response.status == 200, "status {}", response.status);
        seen.fresh.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

fn report(what: &str, seen: &Seen) {
    println!(
        "{what}: {} requests on kept connections ({} crossed), {} on new ones, 0 failed",
        seen.kept.load(Ordering::Relaxed),
        seen.crossed.load(Ordering::Relaxed),
        seen.fresh.load(Ordering::Relaxed)
    );
}

#[test]
fn three_restarts_under_load_fail_no_request() -> Result<()> {
    let mut gateway = start()?;
    let seen = under_load(gateway.address, |seen| {
        // More threads than before, then fewer: no socket is left without one.
        for workers in [2, 3, 1] {
            let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
            gateway.replace("gateway.yaml", text.replace("workers: 2", &format!("workers: {workers}")))?;
            let new = gateway.succeed()?;
            ensure!((new.address, new.admin) == (gateway.address, gateway.admin), "the addresses stay");
            ensure!(gateway.wait(Duration::from_secs(10))?.code() == Some(0), "the old one ends well");
            let before = seen.total();
            wait_until("the new one serves", || seen.total() > before + 2 * CONNECTIONS);
            ensure!(new.admin("/readyz")?.status == 200);
            gateway = new;
        }
        Ok(())
    })?;
    report("three restarts", &seen);
    assert_eq!(seen.crossed.load(Ordering::Relaxed), 0, "a connection is closed with an answer that says so");
    Ok(())
}

#[test]
fn what_the_old_process_has_in_flight_is_finished_by_it() -> Result<()> {
    let upstream = Upstream::start()?;
    let mut old = Setup::new(&format!("upstreams: {{u: {}}}\nroutes: [{{upstream: u}}]", upstream.yaml()))?.start()?;
    let mut slow = old.client()?;
    slow.begin("GET", "/delay/1500", &[], b"")?;
    wait_until("it is in flight", || old.metric("witgate_in_flight").is_ok_and(|n| n == 1.0));
    let new = old.succeed()?;
    let count = "witgate_requests_total{route=\"route-1\",method=\"GET\",status=\"200\"}";
    // The old one may still have accepted the first of them.
    wait_until("the new one serves", || {
        new.get("/", &[]).is_ok_and(|response| response.text() == "ok") && new.metric(count).is_ok_and(|n| n > 0.0)
    });
    let response = slow.read(false)?;
    assert_eq!((response.text().as_str(), response.header("connection")), ("late", Some("close")));
    assert_eq!(old.wait(Duration::from_secs(2))?.code(), Some(0));
    Ok(())
}

#[test]
fn connections_that_nobody_accepted_yet_are_not_lost() -> Result<()> {
    let yaml = format!("limits: {{connections: 1}}\n{YAML}");
    let mut old = Setup::new(&yaml)?.workers(1).with("f.wasm", replying(200, None, "one")?)?.start()?;
    let mut first = old.client()?;
    assert_eq!(first.get("/", &[])?.status, 200);
    let mut waiting: Vec<Client> = (0..5).map(|_| old.client()).collect::<Result<_>>()?;
    for client in &mut waiting {
        client.begin("GET", "/", &["connection: close"], b"")?;
    }
    let _new = old.succeed()?;
    assert_eq!(old.wait(Duration::from_secs(10))?.code(), Some(0));
    for client in &mut waiting {
        assert_eq!(client.read(false)?.text(), "one");
    }
    Ok(())
}

#[test]
fn a_new_process_that_is_no_good_changes_nothing() -> Result<()> {
    let mut old = start()?;
    let good = std::fs::read_to_string(old.path("gateway.yaml"))?;
    let wasm = std::fs::read(old.path("f.wasm"))?;
    let refused = |gateway: &Gateway| gateway.succeed().err().map(|error| error.to_string()).unwrap_or_default();

    old.replace("gateway.yaml", good.replace("routes", "rutes"))?;
    assert!(refused(&old).contains("did you mean routes?"));
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    old.replace("gateway.yaml", good.replacen("127.0.0.1:0", &elsewhere.to_string(), 1))?;
    let why = refused(&old);
    let expected = format!("the configuration has listener main at {elsewhere}, it has not; it has listener main at ");
    assert!(why.contains(&expected) && why.contains(&old.address.to_string()), "{why}");
    old.replace("gateway.yaml", &good)?;
    old.replace("f.wasm", "hello")?;
    assert!(refused(&old).contains("the file is not WebAssembly"));
    assert!(serves(&old) && old.admin("/readyz")?.status == 200);

    old.replace("f.wasm", wasm)?;
    let new = old.succeed()?;
    assert_eq!(old.wait(Duration::from_secs(10))?.code(), Some(0));
    assert!(serves(&new));
    Ok(())
}

#[test]
fn without_a_running_gateway_it_starts_as_usual() -> Result<()> {
    let mut old = start()?;
    old.signal(Signal::TERM)?;
    assert_eq!(old.wait(Duration::from_secs(10))?.code(), Some(0));
    let new = old.succeed()?;
    assert!(serves(&new));
    new.wait_logged("no gateway to take over from", 1);
    Ok(())
}

#[test]
fn hangups_under_load_fail_no_request() -> Result<()> {
    const RELOADS: usize = 20;
    let gateway = start()?;
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    let seen = under_load(gateway.address, |_| {
        for reload in 1..=RELOADS {
            let applied = gateway.metric("witgate_reloads_total{result=\"applied\"}")?;
            gateway.replace("gateway.yaml", format!("{text}\nlimits: {{in_flight: {}}}\n", 1000 + reload))?;
            gateway.signal(Signal::HUP)?;
            wait_until("the reload", || {
                gateway.metric("witgate_reloads_total{result=\"applied\"}").is_ok_and(|now| now > applied)
            });
        }
        Ok(())
    })?;
    report("20 reloads", &seen);
    assert_eq!(seen.crossed.load(Ordering::Relaxed), 0, "a reload closes no connection");
    Ok(())
}

#[test]
fn a_response_of_three_seconds_is_finished_and_then_it_exits() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 10s}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let mut gateway = Setup::new(&yaml)?.start()?;
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/3000", &[], b"")?;
    wait_until("it is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0));
    gateway.signal(Signal::TERM)?;
    assert_eq!(slow.read(false)?.text(), "late");
    let answered = Instant::now();
    assert_eq!(gateway.wait(Duration::from_secs(1))?.code(), Some(0));
    println!("exit {:?} after the last byte", answered.elapsed());
    Ok(())
}

#[test]
fn the_service_manager_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(10)))?;
    let hears = || -> Result<String> {
        let mut word = [0; 64];
        let length = manager.recv(&mut word)?;
        Ok(String::from_utf8_lossy(&word[..length]).into_owned())
    };
    let mut gateway =
        Setup::new(YAML)?.with("f.wasm", replying(200, None, "one")?)?.variable("NOTIFY_SOCKET", &path).start()?;
    assert_eq!(hears()?, "READY=1");
    gateway.signal(Signal::HUP)?;
    assert_eq!((hears()?, hears()?), ("RELOADING=1".to_owned(), "READY=1".to_owned()));
    gateway.signal(Signal::TERM)?;
    assert_eq!(hears()?, "STOPPING=1");
    assert_eq!(gateway.wait(Duration::from_secs(10))?.code(), Some(0));
    Ok(())
}
