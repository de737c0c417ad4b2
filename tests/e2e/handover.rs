//! Takeover by a new process, and reloads under load: no request fails. If the new process cannot
//! start, the old one stays in service.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::wat::responder;
use harness::{Client, Gateway, Setup, Upstream, wait_until};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType};
use rustix::process::Signal;

const CONNECTIONS: usize = 64;
const YAML: &str =
    "filters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";

fn start() -> Result<Gateway> {
    Setup::new(YAML)?.with("f.wasm", responder(200, None, "one")?)?.start()
}

fn serves(gateway: &Gateway) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == "one")
}

/// Counters of the load.
#[derive(Default)]
struct LoadStats {
    /// Requests on keep-alive connections.
    kept: AtomicUsize,
    /// Requests on new connections.
    fresh: AtomicUsize,
    /// Requests that were under way when the gateway closed their idle connection. RFC 9112,
    /// section
    /// 9.3.1 lets a client send them again.
    crossed: AtomicUsize,
    stop: AtomicBool,
}

impl LoadStats {
    fn total(&self) -> usize {
        self.kept.load(Ordering::Relaxed) + self.fresh.load(Ordering::Relaxed)
    }
}

/// Keeps 64 connections busy and opens a new one every few milliseconds while `work` runs. It fails
/// on any status but 200, and on a connection that is refused, or reset with a request that the
/// gateway may have read.
fn under_load(address: SocketAddr, work: impl FnOnce(&LoadStats) -> Result<()>) -> Result<LoadStats> {
    let stats = LoadStats::default();
    std::thread::scope(|scope| -> Result<()> {
        let mut load: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| keep_alive(address, &stats))).collect();
        load.push(scope.spawn(|| new_connections(address, &stats)));
        wait_until("the load runs", || stats.total() > 2 * CONNECTIONS);
        let done = work(&stats);
        stats.stop.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().unwrap()?;
        }
        done
    })?;
    Ok(stats)
}

/// Sends requests on one connection and reconnects when the gateway closes it.
fn keep_alive(address: SocketAddr, stats: &LoadStats) -> Result<()> {
    let mut client = Client::connect(address)?;
    let mut is_fresh = true;
    while !stats.stop.load(Ordering::Relaxed) {
        let sent = client.begin("GET", "/", &[], b"");
        if !is_fresh && (sent.is_err() || !client.response_starts()) {
            stats.crossed.fetch_add(1, Ordering::Relaxed);
            (client, is_fresh) = (Client::connect(address)?, true);
            continue;
        }
        let response = client.read(false).context("on a keep-alive connection")?;
        ensure!(response.status == 200, "status {}", response.status);
        stats.kept.fetch_add(1, Ordering::Relaxed);
        is_fresh = response.header("connection") == Some("close");
        if is_fresh {
            client = Client::connect(address)?;
        }
    }
    Ok(())
}

/// Sends each request on a new connection.
fn new_connections(address: SocketAddr, stats: &LoadStats) -> Result<()> {
    while !stats.stop.load(Ordering::Relaxed) {
        let response = Client::connect(address)?.get("/", &[]).context("on a new connection")?;
        ensure!(response.status == 200, "status {}", response.status);
        stats.fresh.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

fn report(what: &str, stats: &LoadStats) {
    println!(
        "{what}: {} requests on kept connections ({} crossed), {} on new ones, 0 failed",
        stats.kept.load(Ordering::Relaxed),
        stats.crossed.load(Ordering::Relaxed),
        stats.fresh.load(Ordering::Relaxed)
    );
}

#[test]
fn three_restarts_under_load_fail_no_request() -> Result<()> {
    let mut gateway = start()?;
    let stats = under_load(gateway.address, |stats| {
        // More worker threads, then fewer: every socket must keep a thread that accepts from it.
        for workers in [2, 3, 1] {
            let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
            gateway.replace("gateway.yaml", text.replace("workers: 2", &format!("workers: {workers}")))?;
            let new = gateway.start_successor()?;
            ensure!(
                (new.address, new.admin) == (gateway.address, gateway.admin),
                "the new process has other addresses"
            );
            ensure!(gateway.wait(Duration::from_secs(10))?.code() == Some(0), "the old process failed");
            let before = stats.total();
            wait_until("the new process serves", || stats.total() > before + 2 * CONNECTIONS);
            ensure!(new.admin("/readyz")?.status == 200);
            gateway = new;
        }
        Ok(())
    })?;
    report("three restarts", &stats);
    assert_eq!(
        stats.crossed.load(Ordering::Relaxed),
        0,
        "a connection may close only after a response with connection: close"
    );
    Ok(())
}

#[test]
fn the_old_process_finishes_its_requests_in_flight() -> Result<()> {
    let upstream = Upstream::start()?;
    let mut old = Setup::new(&format!("upstreams: {{u: {}}}\nroutes: [{{upstream: u}}]", upstream.yaml()))?.start()?;
    let mut slow = old.client()?;
    slow.begin("GET", "/delay/1500", &[], b"")?;
    wait_until("the request is in flight", || old.metric("witgate_in_flight").is_ok_and(|n| n == 1.0));
    let new = old.start_successor()?;
    let count = "witgate_requests_total{route=\"route-1\",method=\"GET\",status=\"200\"}";
    // The old process may still accept the first requests.
    wait_until("the new process serves", || {
        new.get("/", &[]).is_ok_and(|response| response.text() == "ok") && new.metric(count).is_ok_and(|n| n > 0.0)
    });
    let response = slow.read(false)?;
    assert_eq!((response.text().as_str(), response.header("connection")), ("late", Some("close")));
    assert_eq!(old.wait(Duration::from_secs(2))?.code(), Some(0));
    Ok(())
}

#[test]
fn connections_in_the_accept_queue_are_not_lost() -> Result<()> {
    let yaml = format!("limits: {{connections: 1}}\n{YAML}");
    let mut old = Setup::new(&yaml)?.workers(1).with("f.wasm", responder(200, None, "one")?)?.start()?;
    let mut first = old.client()?;
    assert_eq!(first.get("/", &[])?.status, 200);
    let mut waiting: Vec<Client> = (0..5).map(|_| old.client()).collect::<Result<_>>()?;
    for client in &mut waiting {
        client.begin("GET", "/", &["connection: close"], b"")?;
    }
    let _new = old.start_successor()?;
    assert_eq!(old.wait(Duration::from_secs(10))?.code(), Some(0));
    for client in &mut waiting {
        assert_eq!(client.read(false)?.text(), "one");
    }
    Ok(())
}

#[test]
fn a_new_process_that_cannot_start_changes_nothing() -> Result<()> {
    let mut old = start()?;
    let valid = std::fs::read_to_string(old.path("gateway.yaml"))?;
    let wasm = std::fs::read(old.path("f.wasm"))?;
    let refused =
        |gateway: &Gateway| gateway.start_successor().err().map(|error| error.to_string()).unwrap_or_default();

    old.replace("gateway.yaml", valid.replace("routes", "rutes"))?;
    assert!(refused(&old).contains("did you mean routes?"));
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    old.replace("gateway.yaml", valid.replacen("127.0.0.1:0", &elsewhere.to_string(), 1))?;
    let error = refused(&old);
    let expected = format!(
        "the configuration has listener main at {elsewhere}, the running gateway does not; the running gateway has listener main at "
    );
    assert!(error.contains(&expected) && error.contains(&old.address.to_string()), "{error}");
    old.replace("gateway.yaml", &valid)?;
    old.replace("f.wasm", "hello")?;
    assert!(refused(&old).contains("the file is not WebAssembly"));
    assert!(serves(&old) && old.admin("/readyz")?.status == 200);

    old.replace("f.wasm", wasm)?;
    let new = old.start_successor()?;
    assert_eq!(old.wait(Duration::from_secs(10))?.code(), Some(0));
    assert!(serves(&new));
    Ok(())
}

#[test]
fn takeover_without_a_running_gateway_starts_normally() -> Result<()> {
    let mut old = start()?;
    old.signal(Signal::TERM)?;
    assert_eq!(old.wait(Duration::from_secs(10))?.code(), Some(0));
    let new = old.start_successor()?;
    assert!(serves(&new));
    new.wait_logged("no gateway to take over from", 1);
    Ok(())
}

#[test]
fn reloads_under_load_fail_no_request() -> Result<()> {
    const RELOADS: usize = 20;
    let gateway = start()?;
    let text = std::fs::read_to_string(gateway.path("gateway.yaml"))?;
    let stats = under_load(gateway.address, |_| {
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
    report("20 reloads", &stats);
    assert_eq!(stats.crossed.load(Ordering::Relaxed), 0, "a reload must close no connection");
    Ok(())
}

#[test]
fn a_response_of_three_seconds_finishes_before_the_exit() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 10s}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let mut gateway = Setup::new(&yaml)?.start()?;
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/3000", &[], b"")?;
    wait_until("the request is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0));
    gateway.signal(Signal::TERM)?;
    assert_eq!(slow.read(false)?.text(), "late");
    let answered = Instant::now();
    assert_eq!(gateway.wait(Duration::from_secs(1))?.code(), Some(0));
    println!("the gateway exited {:?} after the last byte", answered.elapsed());
    Ok(())
}

#[test]
fn the_service_manager_is_notified() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(10)))?;
    let receive = || -> Result<String> {
        let mut message = [0; 64];
        let length = manager.recv(&mut message)?;
        Ok(String::from_utf8_lossy(&message[..length]).into_owned())
    };
    let mut gateway =
        Setup::new(YAML)?.with("f.wasm", responder(200, None, "one")?)?.variable("NOTIFY_SOCKET", &path).start()?;
    assert_eq!(receive()?, "READY=1");
    gateway.signal(Signal::HUP)?;
    assert_eq!((receive()?, receive()?), ("RELOADING=1".to_owned(), "READY=1".to_owned()));
    gateway.signal(Signal::TERM)?;
    assert_eq!(receive()?, "STOPPING=1");
    assert_eq!(gateway.wait(Duration::from_secs(10))?.code(), Some(0));
    Ok(())
}

#[test]
fn a_planted_takeover_socket_does_not_stop_the_start() -> Result<()> {
    let setup = Setup::new(YAML)?.with("f.wasm", responder(200, None, "one")?)?;
    let state = setup.write()?.with_file_name("state");
    std::fs::create_dir(&state)?;
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let planted = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    rustix::net::bind(&planted, &SocketAddrUnix::new(state.join("handover.sock"))?)?;
    rustix::net::listen(&planted, 0)?;
    let gateway = setup.start_with(&["--takeover"])?;
    assert!(serves(&gateway));
    gateway.wait_logged("the takeover socket is not used", 1);
    Ok(())
}

#[test]
fn a_takeover_socket_that_does_not_answer_does_not_stop_the_start() -> Result<()> {
    let setup = Setup::new(YAML)?.with("f.wasm", responder(200, None, "one")?)?;
    let state = setup.write()?.with_file_name("state");
    std::fs::create_dir(&state)?;
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let planted = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    rustix::net::bind(&planted, &SocketAddrUnix::new(state.join("handover.sock"))?)?;
    rustix::net::listen(&planted, 4)?;
    let answers = std::thread::spawn(move || {
        let peer = rustix::net::accept(&planted)?;
        rustix::net::send(&peer, b"{\"say\":\"nonsense\"}", SendFlags::empty())
    });
    let gateway = setup.start_with(&["--takeover"])?;
    assert!(serves(&gateway));
    gateway.wait_logged("no gateway answers at the takeover socket", 1);
    assert!(answers.join().is_ok_and(|sent| sent.is_ok()));
    Ok(())
}
